"""``diffsim-search --explain``: a picture, and numbers in JSON."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.support.commands import failed, query_of, run_here


@pytest.fixture(scope="module")
def desk(index: Path) -> Path:
    return index.parent


@pytest.mark.parametrize("form", ["--json", "--jsonl"])
@pytest.mark.thorough
def test_json_has_the_explanation_of_each_drawn_result(form: str, desk: Path, gallery: Path, tmp_path: Path) -> None:
    file = tmp_path / "why.png"
    result = run_here("diffsim-search", query_of(gallery), "-k", "12", form, "--explain", file, "-m", "style", cwd=desk)
    assert result.returncode == 0, result.stderr
    assert result.stderr.decode() == f"drew {file}, of the first 10 results\n"
    text = result.stdout.decode()
    found = json.loads(text)["results"] if form == "--json" else [json.loads(line) for line in text.splitlines()]
    assert ["explanation" in each for each in found] == [True] * 10 + [False] * 2
    for each in found[:10]:
        explanation = each["explanation"]
        assert list(explanation) == ["mode", "score", "query", "candidate", "correspondences"]
        sides = [explanation["query"], explanation["candidate"]]
        total = sum(sum(map(sum, side["map"])) + side["other"] for side in sides)
        assert total == pytest.approx(each["score"], abs=1e-5)
        assert explanation["candidate"]["path"] == each["path"]
        assert len(explanation["correspondences"]) == 12
        assert set(explanation["correspondences"][0]) == {"query", "candidate", "weight"}
    with Image.open(file) as picture:
        assert picture.height > 10 * 288


def test_a_table_is_printed_beside_the_picture(desk: Path, gallery: Path, tmp_path: Path) -> None:
    file = tmp_path / "why.webp"
    plain = run_here("diffsim-search", query_of(gallery), "-k", "2", cwd=desk)
    result = run_here("diffsim-search", query_of(gallery), "-k", "2", "--explain", file, "-q", cwd=desk)
    assert (result.stdout, result.stderr) == (plain.stdout, b"")
    assert file.is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--no-rerank"], "leave out --no-rerank"),
        (["--similarity", "mse"], "leave out --no-rerank and --similarity"),
        (["id:3"], "one query"),
        (["--explain", "why.html"], "must end in one of .png"),
    ],
)
def test_what_cannot_be_explained_is_told_before_the_search(
    words: list[str], message: str, desk: Path, gallery: Path, tmp_path: Path
) -> None:
    asked = ("diffsim-search", query_of(gallery), "--explain", tmp_path / "why.png", *words)
    assert message in failed(run_here(*asked, cwd=desk), 2)
    assert list(tmp_path.iterdir()) == []


def test_no_results_are_no_picture(desk: Path, gallery: Path, tmp_path: Path) -> None:
    file = tmp_path / "why.png"
    asked = ("diffsim-search", query_of(gallery), "--exclude-copies", "--min-score", "0.99999", "--explain", file)
    result = run_here(*asked, cwd=desk)
    assert result.returncode == 0
    assert b"no results to explain" in result.stderr
    assert not file.exists()


def test_a_board_has_an_explanation_of_each_image(desk: Path, gallery: Path, tmp_path: Path) -> None:
    file, others = tmp_path / "why.png", sorted(gallery.rglob("*.png"))[1:3]
    asked = ("diffsim-search", query_of(gallery), others[0], "--combine", "mean", "--not", others[1])
    result = run_here(*asked, "-k", "2", "--explain", file, "--json", "-m", "style", cwd=desk)
    assert result.returncode == 0, result.stderr
    for each in json.loads(result.stdout)["results"]:
        explanation = each["explanation"]
        assert list(explanation) == ["mode", "score", "images"]
        assert [image["query"]["path"] for image in explanation["images"]][1:] == [str(other) for other in others]
        assert sum(image["score"] for image in explanation["images"]) == pytest.approx(each["score"], abs=1e-5)
    with Image.open(file) as picture:
        assert picture.height > 2 * 3 * 288
