"""A server on a real socket: many clients at once, a new generation under load, slow clients, and the end."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from retrieval import Engine
from retrieval.indexing.build import build_index
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.repairing import repair
from retrieval.serving.safety import slow_clients
from retrieval.settings import ServerLimits, ServerSettings
from tests.serving.served import serving
from tests.support.faults import flip_bit
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import load_tiny

CLIENTS = 16


def ask(url: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """Send a question, or look at a path without a body; return the status and the JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"content-type": "application/json"})
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def until(happens: Callable[[], bool], seconds: float = 20) -> float:
    """Wait until something happens, and return the seconds that it took."""
    begun = time.monotonic()
    while not happens():
        assert time.monotonic() - begun < seconds
        time.sleep(0.02)
    return time.monotonic() - begun


def test_many_clients_get_the_answers_of_one(index: Path, engine: Engine) -> None:
    expected = [engine.search(Path(path), k=5) for path in engine.paths()[:CLIENTS]]
    with serving({"gallery": index}, ServerSettings(limits=ServerLimits(queue=CLIENTS))) as url:
        until(lambda: ask(f"{url}/readyz")[0] == 200)
        with ThreadPoolExecutor(CLIENTS) as clients:
            answers = list(
                clients.map(lambda n: ask(f"{url}/v1/search", {"images": [{"id": n}], "k": 5}), range(CLIENTS))
            )
        with urlopen(f"{url}/metrics") as page:
            metrics = page.read().decode()
    for (status, answer), results in zip(answers, expected, strict=True):
        assert status == 200
        assert [each["id"] for each in answer["results"]] == [each.id for each in results]
        scores = [each.score for each in results]
        assert [each["score"] for each in answer["results"]] == pytest.approx(scores, abs=1e-5)
    counted = {line.split()[0]: float(line.split()[1]) for line in metrics.splitlines() if line[:1] not in ("#", "")}
    assert counted["diffsim_batch_questions_sum"] == CLIENTS
    assert counted["diffsim_batch_questions_count"] < CLIENTS, "questions of several requests were answered together"
    assert counted['diffsim_stage_seconds_count{stage="rerank"}'] == CLIENTS


def test_more_clients_than_the_queue_holds_are_told_to_come_back(index: Path) -> None:
    with serving({"gallery": index}, ServerSettings(limits=ServerLimits(queue=2))) as url:
        until(lambda: ask(f"{url}/readyz")[0] == 200)
        with ThreadPoolExecutor(CLIENTS) as clients:
            statuses = Counter(
                clients.map(lambda n: ask(f"{url}/v1/search", {"images": [{"id": n}]})[0], range(CLIENTS))
            )
    assert set(statuses) <= {200, 429}
    assert statuses[200] >= 2
    assert statuses[429] >= 1


def test_an_index_changes_under_load_without_a_failed_request(tmp_path: Path, tiny: None) -> None:
    photos, place = tmp_path / "photos", tmp_path / "a.diffsim"
    paint(photos, range(6))
    build_index(photos, place, modes=["style"], model="cells", run=RUN)
    failed: list[Any] = []
    ended = threading.Event()

    def load(url: str) -> None:
        while not ended.is_set():
            status, answer = ask(f"{url}/v1/search", {"images": [{"id": 1}], "glob": ["00[1-5].png"], "k": 3})
            if status != 200:
                failed.append(answer)

    with serving({"a": place}, ServerSettings(refresh_seconds=0.1), load_tiny) as url:
        threads = [threading.Thread(target=load, args=(url,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        paint(photos, range(6, 9))
        build_index(photos, place, run=RUN)
        took = until(lambda: ask(f"{url}/v1/indexes/a/items/8")[0] == 200)
        newest_segment = sorted((place / "attention" / "style").iterdir())[-1]
        flip_bit(next(path for path in sorted(newest_segment.rglob("c/**/*")) if path.is_file()), 80)
        assert len(repair(place).damages) == 1
        mended = Engine.open(place).catalogue.generation
        until(lambda: ask(f"{url}/v1/indexes")[1]["indexes"][0]["generation"] == mended)
        (photos / "000.png").unlink()
        build_index(photos, place, run=RUN)
        compact(place, now=True)
        until(lambda: ask(f"{url}/v1/indexes/a/items/0")[0] == 404)
        newest = Engine.open(place).catalogue.generation
        until(lambda: ask(f"{url}/v1/indexes")[1]["indexes"][0]["generation"] == newest)
        time.sleep(0.2)
        ended.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert took < 5


def test_an_index_that_is_gone_stays_served_and_says_so(tmp_path: Path, tiny: None) -> None:
    place = tmp_path / "a.diffsim"
    paint(tmp_path / "photos", range(3))
    build_index(tmp_path / "photos", place, modes=["style"], model="cells", run=RUN)
    with serving({"a": place}, ServerSettings(refresh_seconds=0.05), load_tiny) as url:
        place.rename(tmp_path / "b.diffsim")
        until(lambda: bool(ask(f"{url}/v1/indexes")[1]["indexes"][0]["failure"]))
        assert ask(f"{url}/v1/indexes/a/items/0")[0] == 200
        with urlopen(f"{url}/") as page:
            assert "A newer state of this index can" in page.read().decode()
        (tmp_path / "b.diffsim").rename(place)
        until(lambda: not ask(f"{url}/v1/indexes")[1]["indexes"][0]["failure"])


def test_slow_and_silent_clients_are_let_go(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_clients, "HEADER_SECONDS", 0.3)
    with serving({"gallery": index}) as url:
        port = int(url.rpartition(":")[2])
        for beginning in (b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "):
            with socket.create_connection(("127.0.0.1", port)) as slow:
                slow.settimeout(10)
                slow.sendall(beginning)
                assert slow.recv(100) == b"", "the connection is closed without an answer"
        with socket.create_connection(("127.0.0.1", port)) as patient:
            for _ in range(2):  # a connection may be used again after a while
                patient.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = b""
                while not answer.endswith(b"}"):
                    answer += patient.recv(4000)
                assert b"200 OK" in answer
                time.sleep(0.4)


def test_stopping_answers_every_request_that_was_accepted(index: Path) -> None:
    answered: list[int] = []

    def client(url: str, number: int) -> None:
        answered.append(ask(f"{url}/v1/search", {"images": [{"id": number}], "exhaustive": True})[0])

    with serving({"gallery": index}) as url:
        until(lambda: ask(f"{url}/readyz")[0] == 200)
        threads = [threading.Thread(target=client, args=(url, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        gauge = "diffsim_queue 8.0"
        until(lambda: gauge in urlopen(f"{url}/metrics").read().decode() or len(answered) > 0)
    for thread in threads:
        thread.join()
    assert answered == [200] * 8
