"""`diffsim-index duplicates` and `clusters` as a user runs them."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.support.commands import failed, run_here

SIDE = 160


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, gallery: Path) -> Path:
    """Six drawn pictures, the mirror image of one, a second file of another, and their index."""
    folder = tmp_path_factory.mktemp("desk")
    photos = folder / "photos"
    photos.mkdir()
    for number, file in enumerate(sorted(gallery.rglob("*.png"))[::7][:6]):
        shutil.copy(file, photos / f"{number}.png")
    with Image.open(photos / "0.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photos / "mirror.png")
    shutil.copy(photos / "1.png", photos / "second one.png")
    built = run_here("diffsim-index", "build", "photos", "--model", "cells", cwd=folder)
    assert built.returncode == 0, built.stderr
    return folder


def test_copies_are_listed_and_nothing_is_deleted(desk: Path) -> None:
    before = sorted(path.name for path in (desk / "photos").iterdir())
    options = ["--list", "copies.txt", "--sheet", "groups.html", "--sheet", "groups.png"]
    found = run_here("diffsim-index", "duplicates", *options, cwd=desk)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.decode().splitlines()
    assert sum("2 images are the same picture; the first is kept: it " in line for line in lines) == 2
    assert [line.split()[0] for line in lines if line.startswith("  ")][:4] == ["keep", "copy"] * 2
    assert any(line.startswith("  copy") and line.endswith("(identical bytes)") for line in lines)
    assert any(line.startswith("  copy") and line.endswith("(mirrored)") for line in lines)
    assert "8 images: 2 groups of copies, of which 2 (" in found.stderr.decode()
    assert "nothing was deleted" in found.stderr.decode()
    offered = (desk / "copies.txt").read_text().splitlines()
    assert len(offered) == 2
    assert all(Path(path).parent == desk / "photos" for path in offered)
    assert (desk / "groups.html").read_text("utf-8").count("<b>kept</b>") == 2
    with Image.open(desk / "groups.png") as sheet:
        assert sheet.height > 200
    assert sorted(path.name for path in (desk / "photos").iterdir()) == before


def test_json_references_and_zero_bytes(desk: Path) -> None:
    plain = run_here("diffsim-index", "duplicates", "photos.diffsim", "--json", cwd=desk)
    assert json.loads(plain.stdout)["offered"]["images"] == 2
    options = ["--reference", "photos", "--json", "--list", "none", "-0"]
    kept = run_here("diffsim-index", "duplicates", *options, cwd=desk)
    values = json.loads(kept.stdout)
    assert values["offered"] == {"images": 0, "bytes": 0}
    assert all(member["is_reference"] for group in values["groups"] for member in group["members"])
    assert (desk / "none").read_bytes() == b""
    run_here("diffsim-index", "duplicates", "-q", "--list", "two", "-0", cwd=desk)
    assert (desk / "two").read_bytes().count(b"\0") == 2


def test_clusters_are_printed_and_written(desk: Path) -> None:
    found = run_here("diffsim-index", "clusters", "--min-size", "2", "--out", "c.csv", "--sheet", "c.html", cwd=desk)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(b"cluster  images  cohesion  medoid\n")
    assert b"noise" in found.stdout.splitlines()[-1]
    assert len((desk / "c.csv").read_text().splitlines()) == 9
    values = json.loads(run_here("diffsim-index", "clusters", "--mode", "style", "--json", cwd=desk).stdout)
    assert (values["mode"], values["images"]) == ("style", 8)


def test_wrong_usage_is_said_before_the_work(desk: Path) -> None:
    def error(*words: str) -> str:
        return failed(run_here("diffsim-index", *words, cwd=desk), 2)

    assert "-0 ends the paths of --list" in error("duplicates", "-0")
    assert "must end in one of" in error("duplicates", "--sheet", "a.txt")
    assert "must end in one of .csv, .parquet" in error("clusters", "--out", "a.txt")
    assert "same must lie above 0 and be at most 1, not 2" in error("duplicates", "--same", "2")
    assert "no image in this reference folder" in error("duplicates", "--reference", "elsewhere")
