"""Percentiles, two modes and scaling on the command line."""

import json
from pathlib import Path

import pytest

from retrieval import Engine, EngineSettings
from retrieval.settings import UNLIKE_WEIGHT
from tests.support.commands import failed, run_here


@pytest.fixture(scope="module")
def file(gallery: Path) -> Path:
    return sorted(gallery.rglob("*.png"))[3]


@pytest.fixture(scope="module")
def engine(index: Path) -> Engine:
    return Engine.open(index, EngineSettings(device="cpu"))


def test_tables_and_sheets_show_percentiles(index: Path, file: Path, engine: Engine, tmp_path: Path) -> None:
    asked = ("diffsim-search", "-i", index, "-m", "style", "-k", "3", file)
    lines = run_here(*asked, "--sheet", "found.html", cwd=tmp_path).stdout.decode().splitlines()
    assert lines[0].split() == ["rank", "score", "percentile", "path"]
    expected = engine.search(file, "style", k=3)
    assert [float(line.split()[2]) for line in lines[1:]] == pytest.approx(
        [result.percentile for result in expected], abs=0.01
    )
    assert "%)" in (tmp_path / "found.html").read_text()
    few = json.loads(run_here(*asked, "--min-percentile", "99", "--json", cwd=tmp_path).stdout)["results"]
    assert all(result["percentile"] >= 99 and result["one_in"] >= 99 for result in few)
    assert "out of reach" in failed(run_here(*asked, "--min-percentile", "99.9999", cwd=tmp_path), 2)


def test_info_says_what_a_score_is_worth(index: Path, tmp_path: Path) -> None:
    shown = run_here("diffsim-index", "info", "-i", index, cwd=tmp_path).stdout.decode()
    assert shown.count("a score of 0.97 or more: one in ") == 3
    about = json.loads(run_here("diffsim-index", "info", "-i", index, "--json", cwd=tmp_path).stdout)["percentiles"]
    assert set(about) == {"style", "instance", "semantic"}
    assert about["style"]["example"]["score"] == 0.97


def test_a_mode_after_not_is_a_mode_unless_a_file_is_called_so(
    index: Path, file: Path, engine: Engine, tmp_path: Path
) -> None:
    asked = ("diffsim-search", "-i", index, "-k", "5", "--json", "--mode", "style", file)
    found = json.loads(run_here(*asked, "--not", "semantic", cwd=tmp_path).stdout)
    expected = engine.search(file, "style", k=5, mode_weights={"semantic": UNLIKE_WEIGHT})
    assert [result["path"] for result in found["results"]] == [result.path for result in expected]
    assert [other["mode"] for other in found["results"][0]["other_modes"]] == ["semantic"]
    both = json.loads(run_here(*asked, "--not", "0.5:semantic", "--same", "instance", "0.3", cwd=tmp_path).stdout)
    expected = engine.search(file, "style", k=5, mode_weights={"semantic": 0.5 * UNLIKE_WEIGHT, "instance": 0.3})
    assert [result["path"] for result in both["results"]] == [result.path for result in expected]
    table = run_here(*(word for word in asked if word != "--json"), "--not", "semantic", cwd=tmp_path).stdout.decode()
    assert "semantic percentile" in table.splitlines()[0]
    (tmp_path / "semantic").write_bytes(file.read_bytes())
    board = json.loads(run_here(*asked, "--not", "semantic", cwd=tmp_path).stdout)
    assert board["query"]["minus"][0]["path"] == str(tmp_path / "semantic")
    assert board["results"][0]["other_modes"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--not", "style"), "style is the mode of the search"),
        (("--not", "semantic", "--same", "semantic", "1"), "named twice"),
        (("--not", "lowlevel"), "unknown mode 'lowlevel'"),
        (("--same", "semantics", "1"), "unknown mode 'semantics'"),
        (("--not", "semantic", "--no-rerank"), "exact cosine scores"),
        (("--look-closer", "3"), "needs one image with a box, a mask or a subject"),
    ],
)
def test_what_makes_no_sense_is_refused(
    index: Path, file: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = run_here("diffsim-search", "-i", index, "--mode", "style", file, *options, cwd=tmp_path)
    assert message in failed(result, 2)


def test_scaling_changes_the_order_and_keeps_the_scores(index: Path, file: Path, tmp_path: Path) -> None:
    asked = ("diffsim-search", "-i", index, "-k", "40", "--mode", "style", "--json", file)
    plain, scaled = (
        json.loads(run_here(*asked, *each, cwd=tmp_path).stdout)["results"] for each in ((), ("--scaling", "csls"))
    )
    assert {r["id"]: round(r["score"], 4) for r in plain} == {r["id"]: round(r["score"], 4) for r in scaled}
    assert [r["id"] for r in plain] != [r["id"] for r in scaled]
    table = run_here(*(word for word in asked if word != "--json"), "--scaling", "csls", cwd=tmp_path).stdout.decode()
    head, *rows = table.splitlines()
    keys = [float(row[: head.index("  path")].split()[-1]) for row in rows]
    assert "ordered by" in head
    assert keys == sorted(keys, reverse=True) == [pytest.approx(r["order_key"], abs=1e-4) for r in scaled]
