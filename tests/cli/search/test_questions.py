"""Boards, boxes and masks on the command line."""

import json
from pathlib import Path

import pytest
from PIL import Image

from retrieval import Engine, EngineSettings, Query
from tests.support.commands import failed, run_here


@pytest.fixture(scope="module")
def files(gallery: Path) -> list[Path]:
    return sorted(gallery.rglob("*.png"))[::9]


def test_several_images_are_one_question(index: Path, files: list[Path], tmp_path: Path) -> None:
    asked = ("diffsim-search", "-i", index, "-k", "4", "--json", f"2:{files[0]}", files[1])
    options = ("--combine", "mean", "--not", f"3:{files[2]}", "--not", "id:0", "--sheet", "board.png")
    found = json.loads(run_here(*asked, *options, cwd=tmp_path).stdout)
    engine = Engine.open(index, EngineSettings(device="cpu"))
    minus = [files[2], engine.paths()[0]]
    expected = engine.search(Query(files[:2], [2, 1], minus, [3, 1]), k=4)
    assert [result["path"] for result in found["results"]] == [result.path for result in expected]
    assert found["results"][0]["score"] == pytest.approx(expected[0].score, abs=1e-5)
    assert found["query"] == json.loads(json.dumps(expected.query))
    assert (tmp_path / "board.png").stat().st_size > 0
    lines = run_here(*asked[:5], "--jsonl", files[0], files[1], "--combine", "union", cwd=tmp_path).stdout
    assert len(lines.splitlines()) == 4
    assert "query" not in json.loads(lines.splitlines()[0])


def test_a_box_and_a_mask_ask_with_a_part(index: Path, files: list[Path], tmp_path: Path) -> None:
    Image.new("L", (10, 10), 0).save(tmp_path / "black.png")
    mask = Image.new("L", (10, 10), 0)
    mask.paste(255, (0, 0, 5, 10))
    mask.save(tmp_path / "left.png")
    asked = ("diffsim-search", "-i", index, "-k", "3", "--json", files[0])
    by_box, by_pixels, by_mask = (
        json.loads(run_here(*asked, *each, "--sheet", "part.html", cwd=tmp_path).stdout)
        for each in (("--box", "0,0,.5,1"), ("--box", "0,0,48,96"), ("--mask", "left.png"))
    )
    assert by_box["results"] == by_pixels["results"] == by_mask["results"]
    assert by_box["query"]["region"] == {"box": [0, 0, 0.5, 1]}
    assert by_mask["query"]["region"]["mask"] == str(tmp_path / "left.png")
    assert all(len(result["found_box"]) == 4 for result in by_box["results"])
    each = ("diffsim-search", "-i", index, "-k", "3", "--json", "--subject", *files[:2])
    for found in json.loads(run_here(*each, "--sheet", "part.html", cwd=tmp_path).stdout):
        assert found["query"]["region"]["subject"] is True
    assert "no white pixel" in failed(run_here(*asked, "--mask", "black.png", cwd=tmp_path), 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--combine", "max", "2:A", "B"), "takes no weights"),
        (("--not", "C", "A", "B"), "--combine"),
        (("--box", "0,0,1,1", "A", "B"), "of one image, and 2 queries"),
        (("--box", "0,0,1,1", "--mask", "C", "A"), "choose one of --box, --mask and --subject"),
        (("--box", "0,0,1,1", "--subject", "A"), "choose one of"),
        (("--box", "1,2,3", "A"), "'1,2,3' is not a box: write x,y,width,height"),
        (("--box", "90,0,20,20", "A"), "which has 96 x 96 px"),
        (("--combine", "sum", "A", "B"), "sum"),
        (("2:A", "B"), "see --combine"),
        (("--combine", "mean", "0:A", "B"), "above 0"),
        (("--combine", "mean", "A", "nothing.jpg"), "no such file"),
        (("--combine", "mean", "A", "-", "--not", "-"), "may be given once"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(
    options: tuple[str, ...], message: str, index: Path, files: list[Path], tmp_path: Path
) -> None:
    names = dict(zip("ABC", files, strict=False))
    given = [str(names[text]) if text in names else text.replace(":A", f":{files[0]}") for text in options]
    result = run_here("diffsim-search", "-i", index, *given, cwd=tmp_path)
    assert message in failed(result, 2)
