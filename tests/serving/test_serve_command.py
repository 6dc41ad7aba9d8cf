"""``diffsim-serve`` as a process: it says where it listens, answers, and ends when it is asked to."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from cli.serve_command import ServeOptions, named_places
from retrieval.errors import UsageError
from retrieval.settings import EngineSettings
from tests.support.commands import failed, run_here


def ask_many(url: str, answers: list[int]) -> None:
    """Ask four questions in one request, and note how many answers there are."""
    body = json.dumps({"queries": [{"images": [{"id": number}]} for number in range(4)], "k": 5}).encode()
    with urlopen(Request(f"{url}v1/search/many", body, {"content-type": "application/json"})) as answer:
        answers.append(len(json.load(answer)["answers"]))


def taken(url: str) -> float:
    """Return how many of these questions the server has accepted, answered ones included."""
    page = urlopen(f"{url}metrics").read().decode()
    waiting = re.search(r"^diffsim_queue (\S+)", page, re.MULTILINE)
    answered = re.search(r"^diffsim_requests_total\{[^}]*/v1/search/many[^}]*\} (\S+)", page, re.MULTILINE)
    return (float(waiting[1]) if waiting else 0) + 4 * (float(answered[1]) if answered else 0)


def test_a_server_starts_answers_and_ends_with_every_accepted_request_answered(index: Path, tmp_path: Path) -> None:
    code = "from cli.serve_command import main; main()"
    options = ["--port", "0", "--limit", "k=5", "-v", f"photos={index}"]
    answers: list[int] = []
    with subprocess.Popen(
        [sys.executable, "-c", code, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        body = json.dumps({"images": [{"id": 3}], "k": 5}).encode()
        with urlopen(Request(f"{url}v1/search", body, {"content-type": "application/json"})) as answer:
            assert len(json.load(answer)["results"]) == 5
        with urlopen(f"{url}v1/indexes") as answer:
            assert json.load(answer)["indexes"][0]["name"] == "photos"
        clients = [threading.Thread(target=ask_many, args=(url, answers)) for _ in range(6)]
        for client in clients:
            client.start()
        while taken(url) < 24:
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join(60)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert answers == [4] * 6
    assert "serving photos; stop with Ctrl-C" in said
    assert "POST /v1/search 200" in said
    assert said.count("POST /v1/search/many 200") == 6
    assert "Traceback" not in said


def test_wrong_options_are_refused_before_anything_is_loaded(index: Path, tmp_path: Path) -> None:
    open_to_all = run_here("diffsim-serve", index, "--host", "0.0.0.0", cwd=tmp_path)
    assert "--token-file" in failed(open_to_all, 2)
    unknown = run_here("diffsim-serve", index, "--limit", "speed=9", cwd=tmp_path)
    assert "requests_per_minute" in failed(unknown, 2)
    failed(run_here("diffsim-serve", "nowhere.diffsim", cwd=tmp_path), 3)
    unread = run_here("diffsim-serve", index, "--token-file", "none", cwd=tmp_path)
    assert "can't be read from none" in failed(unread, 2)


def test_indexes_are_served_by_their_names(index: Path) -> None:
    assert named_places([str(index), f"other={index}"], {}) == {"gallery": index, "other": index}
    assert list(named_places([], {"DIFFSIM_INDEX": str(index)})) == ["gallery"]
    with pytest.raises(UsageError, match="two indexes would be served as 'gallery'"):
        named_places([str(index), str(index)], {})


def test_options_become_settings(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token-of-a-test-file\n")
    options = ServeOptions(
        host="0.0.0.0", token_file=tmp_path / "token", allow_host=["a.example"], limit=["k=7"], thumbnails="5MB"
    )
    made = options.settings(EngineSettings(), {"DIFFSIM_TOKEN": "of-the-environment"})
    assert (made.token, made.hosts, made.limits.k, made.thumbnails) == (
        "a-token-of-a-test-file",
        ("a.example",),
        7,
        5_000_000,
    )
    assert ServeOptions().settings(EngineSettings(), {"DIFFSIM_TOKEN": "of-the-environment"}).token
