"""The commands for sources, and the index that a build without a name goes into."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.commands import failed, run_here
from tests.support.sample_index import paint

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A working folder with two folders of images and the index of the first one."""
    paint(tmp_path / "photos", range(4))
    paint(tmp_path / "scans", range(10, 13))
    assert run_here("diffsim-index", "build", "photos", cwd=tmp_path).returncode == 0
    return tmp_path


def test_a_second_folder_goes_into_the_only_index_here(desk: Path) -> None:
    built = run_here("diffsim-index", "build", "scans", cwd=desk)
    assert "building into photos.diffsim, the only index here; name another one with --index" in built.stderr.decode()
    assert b"photos.diffsim: 7 images, 3 added" in built.stdout
    assert [path.name for path in desk.glob("*.diffsim")] == ["photos.diffsim"]
    again = run_here("diffsim-index", "build", "photos", cwd=desk)
    assert b"building into" not in again.stderr
    assert run_here("diffsim-index", "info", cwd=desk).returncode == 0


def test_of_several_indexes_a_build_takes_the_one_of_its_source(desk: Path) -> None:
    assert run_here("diffsim-index", "build", "scans", "--index", "scans.diffsim", cwd=desk).returncode == 0
    assert b"scans.diffsim: 3 images, nothing new" in run_here("diffsim-index", "build", "scans", cwd=desk).stdout
    paint(desk / "others", [20])
    assert "several indexes in" in failed(run_here("diffsim-index", "build", "others", cwd=desk), 3)


def test_sources_are_listed_dropped_and_relocated(desk: Path) -> None:
    run_here("diffsim-index", "build", "scans", cwd=desk)
    shutil.move(desk / "scans", desk / "old scans")
    listed = run_here("diffsim-index", "sources", "photos.diffsim", cwd=desk).stdout.decode().splitlines()
    assert [line.split(maxsplit=2) for line in listed] == [
        ["images", "missing", "source"],
        ["4", "0", "photos"],
        ["3", "3", "scans (not there)"],
    ]
    built = run_here("diffsim-index", "build", "photos", cwd=desk).stderr.decode()
    assert f"3 images in {desk / 'scans'} are missing; if they were moved: diffsim-index relocate" in built
    assert f"diffsim-index remove --source {desk / 'scans'}" in built
    moved = run_here("diffsim-index", "relocate", "scans", "old scans", cwd=desk)
    assert moved.stdout.decode() == "old scans: 3 images\n"
    values = json.loads(run_here("diffsim-index", "sources", "--json", cwd=desk).stdout)
    assert [(s["location"], s["items"], s["missing"]) for s in values["sources"]] == [
        (str(desk / "photos"), 4, 0),
        (str(desk / "old scans"), 3, 0),
    ]
    assert b"4 images, 3 removed" in run_here("diffsim-index", "remove", "--source", "old scans", cwd=desk).stdout
    for arguments in (("remove",), ("remove", "000.png", "--source", "photos")):
        message = failed(run_here("diffsim-index", *arguments, cwd=desk), 2)
        assert "name either images or --source FOLDER" in message


def test_a_source_that_seems_unmounted_is_kept(desk: Path) -> None:
    paint(desk / "photos", range(20, 30))
    run_here("diffsim-index", "build", "photos", cwd=desk)
    for path in sorted((desk / "photos").iterdir())[1:]:
        path.unlink()
    built = run_here("diffsim-index", "build", "photos", cwd=desk)
    assert "13 images of" in built.stderr.decode()
    assert "or remove them with --gone" in built.stderr.decode()
    assert b"photos.diffsim: 14 images" in built.stdout
    (desk / "photos" / "000.png").unlink()
    assert "remove them from the index with: --gone" in failed(
        run_here("diffsim-index", "build", "photos", cwd=desk), 2
    )
    assert b"0 images, 14 removed" in run_here("diffsim-index", "build", "photos", "--gone", cwd=desk).stdout
