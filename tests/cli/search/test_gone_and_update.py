"""Results whose file is gone, and an index that is brought up to date before it is searched."""

import json
import os
from pathlib import Path

import filelock
import pytest

from retrieval import build_index, update_index
from retrieval.errors import UsageError
from tests.support.commands import failed, run_here
from tests.support.sample_index import RUN, paint

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    paint(tmp_path / "photos", range(8))
    build_index(tmp_path / "photos", tmp_path / "p.diffsim", run=RUN)
    return tmp_path / "p.diffsim"


def test_a_result_whose_file_is_gone_says_so(index: Path, tmp_path: Path) -> None:
    os.remove(tmp_path / "photos/003.png")
    asked = ("diffsim-search", "-i", index, "photos/000.png", "-k", "8")
    shown = run_here(*asked, "--sheet", "s.png", "--sheet", "s.html", cwd=tmp_path)
    marked = [line for line in shown.stdout.decode().splitlines() if line.endswith("  (gone)")]
    assert ["003.png" in line for line in marked] == [True]
    assert "the files of 1 of 8 results are gone" in shown.stderr.decode()
    assert "--update" in shown.stderr.decode()
    assert (tmp_path / "s.html").read_text().count("not found</span>") == 1
    results = json.loads(run_here(*asked, "--json", cwd=tmp_path).stdout)["results"]
    assert [result["is_gone"] for result in results] == [result["path"].endswith("003.png") for result in results]


def test_update_follows_the_sources(index: Path, tmp_path: Path) -> None:
    paint(tmp_path / "photos", ["new.png"])
    os.remove(tmp_path / "photos/003.png")
    asked = ("diffsim-search", "-i", index, "photos/new.png", "-k", "20", "--json")
    before = json.loads(run_here(*asked, cwd=tmp_path).stdout)
    assert len(before["results"]) == 8
    shown = run_here(*asked, "--update", cwd=tmp_path)
    names = {Path(result["path"]).name for result in json.loads(shown.stdout)["results"]}
    assert names == {"new.png", *(f"{n:03d}.png" for n in range(8) if n != 3)}
    assert "updated p.diffsim: 1 added, 1 removed" in shown.stderr.decode()
    assert "nothing new" in run_here(*asked, "--update", cwd=tmp_path).stderr.decode()
    assert run_here(*asked, "--update", "-q", cwd=tmp_path).stderr == b""


def test_single_files_stay_single_and_missing_folders_stay_in_the_index(index: Path, tmp_path: Path) -> None:
    paint(tmp_path / "some", ["a.png", "b.png"])
    paint(tmp_path / "disk", ["c.png", "d.png"])
    build_index([tmp_path / "some/a.png", tmp_path / "disk"], index, run=RUN)
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    paint(tmp_path / "photos", ["new.png"])
    report = update_index(index, RUN)
    assert (report.items, report.added, report.removed) == (12, 1, 0)
    for folder in ("photos", "some"):
        (tmp_path / folder).rename(tmp_path / f"no {folder}")
    with pytest.raises(UsageError, match=f"no source of .* is there .* its sources: {tmp_path}"):
        update_index(index, RUN)


def test_an_index_that_nobody_may_write_is_a_clear_error(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(self: object) -> None:
        raise PermissionError(13, "Permission denied", str(index / "LOCK"))

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    asked = ("diffsim-search", "-i", index, "photos/000.png", "--update")
    assert "may not write" in failed(run_here(*asked, cwd=tmp_path), 1)
