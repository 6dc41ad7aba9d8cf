"""``diffsim-eval compare`` and ``compare-table`` from the command line."""

import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from tests.support.commands import BIN, failed, run_here
from tests.support.paths import ROOT

COMPARE = ("diffsim-eval", "compare")


@pytest.fixture(scope="module")
def sets(gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of two groups of two pictures."""
    folder = tmp_path_factory.mktemp("sets")
    styles = sorted(gallery.iterdir())
    for name, chosen in (("style_a", styles[:2]), ("photos", styles[2:4])):
        for group in chosen:
            (folder / name / group.name).mkdir(parents=True)
            for path in sorted(group.iterdir())[:2]:
                os.link(path, folder / name / group.name / path.name)
    return folder


@pytest.mark.thorough
def test_a_comparison_is_written_drawn_and_printed_again(sets: Path, tmp_path: Path) -> None:
    outputs = ("--out", "r.json", "--out", "r.md", "--figure", "compare.png")
    words = ("all", sets, "--model", "cells", "--modes", "style,instance", "--offline", *outputs)
    ran = run_here(*COMPARE, *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr.decode()
    table = ran.stdout.decode()
    assert (tmp_path / "r.md").read_text() == table
    assert "comparing cells on photos, style_a" in ran.stderr.decode()
    modes, by_set = (part.splitlines()[2:] for part in table.split("\n\n"))
    assert [row.split("|")[1:4] for row in modes] == [
        [" style    ", " cells ", " 1    "],
        [" instance ", " cells ", " 2    "],
    ]
    assert len(by_set) == 2 * 2
    with Image.open(tmp_path / "compare.png") as picture:
        assert picture.width == 2 * 460
    kept = json.loads((tmp_path / "r.json").read_text())
    assert [row["best"] for row in kept["modes"]] == [True, True]
    again = run_here("diffsim-eval", "compare-table", "r.json", cwd=tmp_path)
    assert again.stdout.decode() == table
    as_json = run_here("diffsim-eval", "compare-table", "r.json", "r.json", "--json", "--cost", "bytes", cwd=tmp_path)
    assert json.loads(as_json.stdout)["results"] == kept["results"]
    started = time.monotonic()
    repeated = run_here(*COMPARE, *words, "--json", cwd=tmp_path)  # everything is there
    assert json.loads(repeated.stdout)["results"] == kept["results"]
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["groups", "missing"], "missing does not exist"),
        (["tiktok", "."], "'tiktok' can't be compared"),
        (["groups", ".", "--model", "nonsense"], "unknown model 'nonsense'"),
        (["groups", ".", "--cost", "money"], "unknown cost 'money'"),
        (["groups", ".", "--weights", "sd15"], "write it as MODEL=FOLDER"),
        (["groups", ".", "--out", "r.csv"], "must end in one of .json, .md"),
        (["groups", ".", "--figure", "p.jpg"], "must end in .png"),
        (["groups", ".", "--out", "other.json"], "write one with: diffsim-eval compare BENCH DATA --out FILE.json"),
    ],
)
def test_wrong_requests_end_in_one_sentence(words: list[str], message: str, sets: Path, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"measurements": []}')
    home = tmp_path / "sets"
    home.symlink_to(sets / "photos")
    given = [str(home) if word == "." and "tiktok" not in words else word for word in words]
    assert message in failed(run_here(*COMPARE, *given, cwd=tmp_path), 2)


@pytest.mark.slow
def test_ctrl_c_keeps_the_sets_that_are_done(sets: Path, tmp_path: Path) -> None:
    command = [str(BIN / "diffsim-eval"), "compare", "all", str(sets), "--grey", "--offline", "-o", "r.json"]
    default = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # background jobs of a shell ignore it
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=default
    )
    deadline = time.monotonic() + 100
    while not (tmp_path / "r.json").is_file():
        time.sleep(0.01)
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.decode().splitlines()[-1] == "stopped: the sets that are done are in r.json; the same command goes on"
    assert 1 <= len(json.loads((tmp_path / "r.json").read_text())["results"]) < 4
