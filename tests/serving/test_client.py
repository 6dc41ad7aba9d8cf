"""A client gives what an engine gives, in Python and on the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from retrieval import Box, Client, Engine, ImageExplanation, Query
from retrieval.errors import ImageError, UsageError
from retrieval.search.filters.filter import Filter
from retrieval.serving.client.transport import ServerError
from retrieval.settings import ServerLimits, ServerSettings
from tests.serving.served import serving
from tests.support.commands import failed, run_here

TOKEN = "a-long-enough-token-of-a-test"


@pytest.fixture(scope="module")
def url(index: Path) -> Iterator[str]:
    settings = ServerSettings(token=TOKEN, limits=ServerLimits(queries=3, page=30))
    with serving({"gallery": index}, settings) as found:
        yield found


@pytest.fixture(scope="module")
def asking(url: str) -> Client:
    return Client(url, token=TOKEN)


def same(mine: object, other: object) -> bool:
    """Whether two values of JSON are equal, numbers nearly so."""
    if isinstance(mine, dict) and isinstance(other, dict):
        return mine.keys() == other.keys() and all(same(mine[key], other[key]) for key in mine if key != "timing_ms")
    if isinstance(mine, list) and isinstance(other, list):
        return len(mine) == len(other) and all(same(one, two) for one, two in zip(mine, other, strict=True))
    return mine == (pytest.approx(other, abs=1e-5) if isinstance(other, float) else other)


def test_searches_score_and_names(asking: Client, engine: Engine, files: list[Path]) -> None:
    assert (len(asking), asking.modes, asking.paths()) == (len(engine), engine.modes, engine.paths())
    assert asking.info()["items"] == len(engine)
    board = Query([files[0], Image.open(files[9]).convert("RGB")], [2, 1], [files[20]], combine="union")
    region = Query([files[3]], regions=[Box(0.1, 0.1, 0.6, 0.6)])
    for query in (files[5], files[5].read_bytes(), board, region):
        where = Filter(glob="*cat.png", under=files[0].parent.parent)
        mine, other = (each.search(query, "instance", where=where, k=4).to_dict() for each in (asking, engine))
        assert same(json.loads(json.dumps(mine)), json.loads(json.dumps(other)))
    assert asking.score(files[1], files[2]) == pytest.approx(engine.score(files[1], files[2]), abs=1e-6)


def test_many_queries_keep_their_order_and_their_errors(asking: Client, tmp_path: Path, files: list[Path]) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    asked, passed = [*files[:4], tmp_path / "broken.png", tmp_path / "missing.png", files[7]], []
    found = list(asking.search_many(asked, on_unusable=lambda query, error: passed.append((query, error)), k=1))
    assert [results[0].path for _, results in found] == [str(path) for path in (*files[:4], files[7])]
    assert [query for query, _ in passed] == asked[4:6]
    assert all(isinstance(error, ImageError) for _, error in passed)
    with pytest.raises(ImageError, match="PNG"):
        asking.search(tmp_path / "broken.png")


def test_an_explanation_is_that_of_the_engine(asking: Client, engine: Engine, files: list[Path]) -> None:
    mine = asking.explain(files[3], 7, "instance")
    assert isinstance(mine, ImageExplanation)
    assert same(mine.to_dict(), engine.explain(files[3], 7, "instance").to_dict())


@pytest.mark.thorough
def test_the_command_prints_and_draws_the_same(
    url: str, index: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFSIM_TOKEN", TOKEN)
    asked = ("diffsim-search", files[3], "id:9", "-k", "3", "-m", "instance", "--exclude-self", "--json")
    here = json.loads(run_here(*asked, "--index", index, cwd=tmp_path).stdout)
    there = json.loads(run_here(*asked, "--server", url, cwd=tmp_path).stdout)
    assert same(there, here)
    drawn = run_here("diffsim-search", files[3], "--server", url, "--explain", "why.png", cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr.decode()
    assert (tmp_path / "why.png").stat().st_size > 0
    streamed = run_here("diffsim-search", "--all", "-k", "1", "--server", url, cwd=tmp_path)
    assert len(streamed.stdout.splitlines()) == len(files)


def test_errors_are_one_sentence(url: str, tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerError, match="needs its token"):
        Client(url, token="wrong")
    with pytest.raises(ServerError, match="can't be reached"):
        Client("http://127.0.0.1:9")
    with pytest.raises(UsageError, match="no address"):
        Client("file:///etc/passwd")
    with pytest.raises(UsageError, match="known: gallery"):
        Client(url, "other", TOKEN)
    monkeypatch.setenv("DIFFSIM_TOKEN", TOKEN)
    wrong = run_here("diffsim-search", files[0], "--server", url, "-m", "taste", cwd=tmp_path)
    assert "taste" in failed(wrong, 2)
    unnamed = run_here("diffsim-search", "no-such\udcff.png", "--server", url, cwd=tmp_path)
    assert "no item of the index has that name" in failed(unnamed, 2)
    updated = run_here("diffsim-search", files[0], "--server", url, "--update", cwd=tmp_path)
    assert "writes to no index" in failed(updated, 2)
