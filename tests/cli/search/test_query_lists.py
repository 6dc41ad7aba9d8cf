"""Many questions at once: from a file, from stdin, and with every item; answers as lines that outlive a stop."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from retrieval import Engine, EngineSettings, build_index
from tests.support.commands import failed, run_here
from tests.support.sample_index import RUN, paint

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    paint(tmp_path / "photos", range(21))
    build_index(tmp_path / "photos", tmp_path / "p.diffsim", run=RUN)
    return tmp_path / "p.diffsim"


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def test_a_file_of_queries_is_like_arguments(index: Path, tmp_path: Path) -> None:
    asked = ("diffsim-search", "-i", index, "-k", "3", "--json")
    (tmp_path / "list.txt").write_bytes(b"id:3\r\n\nphotos/004.png\n")
    by_arguments = json.loads(run_here(*asked, "id:3", "photos/004.png", cwd=tmp_path).stdout)
    listed = json.loads(run_here(*asked, "--queries", "list.txt", cwd=tmp_path).stdout)
    assert [each["results"] for each in listed] == [each["results"] for each in by_arguments]
    mixed = json.loads(run_here(*asked, "--queries", "-", "id:3", cwd=tmp_path, stdin=b"photos/004.png").stdout)
    assert [each["results"] for each in mixed] == [each["results"] for each in by_arguments]
    board = json.loads(run_here(*asked, "--queries", "list.txt", "--combine", "union", cwd=tmp_path).stdout)
    assert len(board["query"]["images"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "missing queries"),
        (("--queries", "missing.txt"), "missing.txt can't be read: No such file"),
        (("--queries", "empty.txt"), "empty.txt holds no query"),
        (("--queries", "-", "-"), "may be given once"),
        (("--all", "photos/001.png"), "leave out other queries"),
        (("--all", "--queries", "empty.txt"), "leave out other queries"),
        (("--all", "--json"), "--all writes JSON lines"),
        (("photos/001.png", "--out", "a.jsonl", "--sheet", "a.png"), "--out writes JSON lines"),
        (("--all", "--not", "photos/001.png"), "leave out --combine"),
        (("--all", "--out", "empty.txt"), "empty.txt holds something else"),
    ],
)
@pytest.mark.thorough
def test_what_does_not_fit_together(index: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    assert message in failed(run_here("diffsim-search", "-i", index, *options, cwd=tmp_path), 2)
    assert (tmp_path / "empty.txt").read_text() == "\n \n"


def test_every_item_asks(index: Path, tmp_path: Path) -> None:
    shown = run_here("diffsim-search", "-i", index, "--all", "-k", "2", "--exclude-self", cwd=tmp_path)
    answers, engine = lines(shown.stdout), Engine.open(index, EngineSettings(device="cpu"))
    assert [answer["query"]["id"] for answer in answers] == [number for number, _ in engine.items()]
    for (_, path), answer in zip(engine.items(), answers, strict=True):
        expected = engine.search(path, k=2, exclude_self=True)
        assert [result["id"] for result in answer["results"]] == [result.id for result in expected]
        assert path not in [result["path"] for result in answer["results"]]


def test_a_stopped_search_goes_on_from_any_byte(index: Path, tmp_path: Path) -> None:
    os.remove(tmp_path / "photos/002.png")
    asked = ("diffsim-search", "-i", index, "--all", "-k", "2", "--out", "a.jsonl")
    ended = run_here(*asked, cwd=tmp_path)
    assert ended.returncode == 1
    assert "002.png" in ended.stderr.decode()
    whole = (tmp_path / "a.jsonl").read_bytes()
    header, *answers = lines(whole)
    assert header["queries"] == "all"
    assert [answer["query"]["id"] for answer in answers] == list(range(21))
    assert [answer["query"]["id"] for answer in answers if "error" in answer] == [2]
    first = whole.index(b"\n")
    for cut in (0, 10, first, first + 1, first + 40, len(whole) // 2, len(whole) - 1, len(whole)):
        (tmp_path / "a.jsonl").write_bytes(whole[:cut])
        run_here(*asked, cwd=tmp_path)
        assert (tmp_path / "a.jsonl").read_bytes() == whole
    other = failed(run_here(*asked, "--no-rerank", cwd=tmp_path), 2)
    assert "answers to another search (settings differ)" in other
    assert (tmp_path / "a.jsonl").read_bytes() == whole


def test_errors_keep_their_place_among_the_answers(index: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    queries = ["nowhere.png", "id:1", "broken.png", "id:2", "id:99"]
    shown = run_here("diffsim-search", "-i", index, *queries, "-k", "1", "--out", "o.jsonl", cwd=tmp_path)
    assert shown.returncode == 1
    _, *answers = lines((tmp_path / "o.jsonl").read_bytes())
    assert [answer["query"]["asked"] for answer in answers] == queries
    assert ["error" in answer for answer in answers] == [True, False, True, False, True]
    assert answers[2]["kind"] == "image"
