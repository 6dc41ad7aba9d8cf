"""Update, remove, compact, verify, repair and export, on the tiny model."""

import errno
import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from index_store import garbage
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.errors import NoSpaceError, UsageError
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.exporting import export
from retrieval.indexing.upkeep.removing import remove_items
from retrieval.search.engine import Engine
from tests.indexing.builds import build, ids_of
from tests.support.faults import Operations
from tests.support.ranking import assert_same_ranking
from tests.support.sample_index import Contents, paint

pytestmark = pytest.mark.usefixtures("tiny")


def test_a_renamed_file_keeps_its_id_and_its_tensors(built: tuple[Path, Path]) -> None:
    folder, index = built
    before, contents = ids_of(index), Contents.of(index)
    (folder / "a" / "003.png").rename(folder / "b" / "new name.png")
    report = build(folder, index)
    assert (report.added, report.moved, report.removed, report.unchanged) == (0, 1, 0, 9)
    after = ids_of(index)
    assert after["new name.png"] == before["003.png"]
    assert "003.png" not in after
    assert Contents.of(index).tensors == contents.tensors
    assert build(folder, index).unchanged == 10


def test_a_touched_file_is_looked_at_but_not_computed(built: tuple[Path, Path]) -> None:
    folder, index = built
    os.utime(folder / "a" / "001.png", (1, 1))
    report = build(folder, index)
    assert (report.added, report.moved, report.unchanged) == (0, 1, 9)
    assert build(folder, index).unchanged == 10


def test_vanished_files_leave_the_results_and_ids_are_not_given_again(built: tuple[Path, Path]) -> None:
    folder, index = built
    ids = ids_of(index)
    (folder / "a" / "000.png").unlink()
    assert build(folder, index).removed == 1
    assert "000.png" not in ids_of(index)
    paint(folder / "a", [0], seed=9)
    build(folder, index)
    assert ids_of(index)["000.png"] > max(ids.values())


def test_only_what_lies_below_the_sources_can_vanish(built: tuple[Path, Path], tmp_path: Path) -> None:
    folder, index = built
    paint(tmp_path / "other", range(20, 23))
    assert build(tmp_path / "other", index).removed == 0
    assert len(ids_of(index)) == 13
    shutil.rmtree(folder / "b")
    assert build(folder / "a", index).removed == 0
    assert build(folder, index).removed == 4
    assert {str(folder), str(tmp_path / "other")} == set(IndexReader(index).sources.places)


def test_a_folder_is_not_below_one_whose_name_begins_its_own(built: tuple[Path, Path]) -> None:
    folder, index = built
    paint(folder / "a b", [30])
    build(folder, index)
    shutil.rmtree(folder / "a b")
    assert build(folder / "a", index).removed == 0
    assert build(folder, index).removed == 1


def test_what_an_unreadable_folder_hides_does_not_vanish(
    built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval.images.discovery import Listing, find_images
    from retrieval.indexing import changes as work

    folder, index = built

    def half_blind(sources: list[Path]) -> Listing:
        seen = find_images(sources)
        kept = tuple(name for name in seen.names if Path(name).parent.name != "b")
        return Listing(kept, seen.passed_over, (folder / "b",))

    monkeypatch.setattr(work, "find_images", half_blind)
    report = build(folder, index)
    assert (report.removed, report.items) == (0, 10)
    assert report.unreadable_folders == (str(folder / "b"),)


def test_removal_by_path_end_glob_and_id(built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, index = built
    ids = ids_of(index)
    monkeypatch.chdir(folder)
    assert remove_items(index, ["a/000.png", "b/*.png", f"id:{ids['001.png']}"]).removed == 6
    assert sorted(ids_of(index)) == ["002.png", "003.png", "004.png", "005.png"]
    for pattern in ("a/000.png", "*.jpg", "id:99"):
        with pytest.raises(UsageError, match="no item of"):
            remove_items(index, [pattern])
    assert build(folder, index).revived == 6  # the files are still there


def test_compaction_changes_nothing_but_the_segments(built: tuple[Path, Path]) -> None:
    folder, index = built
    (folder / "a" / "002.png").rename(folder / "a" / "z.png")
    (folder / "b" / "broken.png").write_text("no picture")
    build(folder, index)
    remove_items(index, ["005.png"])
    before = Contents.of(index)
    opened = Engine.open(index)
    query = folder / "a" / "001.png"
    answers = opened.search(query, exhaustive=True)
    change = compact(index)
    assert (change.items, change.segments) == (9, 1)
    assert Contents.of(index).differences(before) == []
    assert read_current(Layout(index)).tombstones == ()
    for engine in (Engine.open(index), opened):  # the latter has an older generation open
        assert_same_ranking(engine.search(query, exhaustive=True), answers, whole=True)
    assert compact(index, now=True).segments == 1
    assert len(list((index / "items").iterdir())) == 1
    assert Contents.of(index).differences(before) == []


@pytest.mark.thorough
def test_a_compaction_that_meets_a_full_disk_removes_what_it_wrote(built: tuple[Path, Path]) -> None:
    """At any write: of the first segment, of the second, or of the generation."""
    _, index = built
    copy = index.with_name("copy.diffsim")

    def run_out() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shutil.copytree(index, copy)
    with Operations(copy, 0, run_out).watched() as undisturbed:
        compact(copy)
    stopped = 0
    for number in range(1, undisturbed.count + 1, 17):
        shutil.rmtree(copy)
        shutil.copytree(index, copy)
        before = {path.relative_to(copy) for path in copy.rglob("*") if path.name != "LOCK"}
        with suppress(NoSpaceError), Operations(copy, number, run_out).watched():
            compact(copy)
            continue
        stopped += 1
        left = {path.relative_to(copy) for path in copy.rglob("*") if path.name != "LOCK"} - before
        assert {path for path in left if path.parts[0] != "generations"} == set(), f"stopped at operation {number}"
        assert Contents.of(copy).differences(Contents.of(index)) == []
    assert stopped > 2


def test_retired_segments_go_after_a_day_and_never_when_the_clock_went_back(
    built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, index = built

    class Clock(datetime):
        ahead = timedelta(0)

        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + cls.ahead

    monkeypatch.setattr(garbage, "datetime", Clock)
    compact(index)
    for ahead, left in ((timedelta(hours=-30), 4), (timedelta(hours=23), 4), (timedelta(hours=25), 1)):
        Clock.ahead = ahead
        build(folder, index)
        assert len(list((index / "items").iterdir())) == left


def test_an_emptied_index_compacts_and_fills_again(built: tuple[Path, Path]) -> None:
    folder, index = built
    remove_items(index, [str(folder / "*")])
    assert compact(index, now=True).items == 0
    assert len(Engine.open(index).search(folder / "a" / "000.png")) == 0
    assert build(folder, index).added == 10


def test_export_is_readable_by_others(built: tuple[Path, Path], tmp_path: Path) -> None:
    _, index = built
    export(index, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "items.parquet")
    vectors = np.load(tmp_path / "out" / "descriptor.npy")
    assert table.num_rows == len(vectors) == 10
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    with pytest.raises(UsageError, match="not empty"):
        export(index, tmp_path / "out")
