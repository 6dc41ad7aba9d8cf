"""A file whose content the index knows is never computed again, wherever it lies."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_store.catalog import Item
from index_store.reader import IndexReader
from retrieval.indexing.reports import BuildEvent
from retrieval.indexing.sources.hashing import HashedFile
from retrieval.indexing.sources.matching import match
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.removing import remove_items
from retrieval.indexing.upkeep.repairing import verify
from tests.indexing.builds import LAZY, build, computed, fill, ids_of
from tests.support.faults import flip_bit
from tests.support.sample_index import RUN

pytestmark = pytest.mark.usefixtures("tiny")
IMAGES = 6


def by_path(index: Path) -> dict[str, tuple[str, list[bytes]]]:
    """Return every item's SHA-256, vector and tensors, by path."""
    reader = IndexReader(index)
    rows = list(range(len(reader)))
    arrays = [reader.stored_vectors(name) for name in reader.generation.encoders]
    arrays += [array for mode in reader.generation.modes for array in reader.attention(mode, rows).values()]
    return {item.uri: (item.sha256, [a[row].tobytes() for a in arrays]) for row, item in enumerate(reader.items())}


def swap(photos: Path) -> None:
    (photos / "000.png").rename(photos / "x.png")
    (photos / "001.png").rename(photos / "000.png")
    (photos / "x.png").rename(photos / "001.png")


def rotate_over_folders(photos: Path) -> None:
    (photos / "deeper").mkdir()
    (photos / "002.png").rename(photos / "deeper" / "002.png")
    (photos / "003.png").rename(photos / "002.png")
    (photos / "004.png").rename(photos / "003.png")


def copy_over_another(photos: Path) -> None:
    shutil.copy(photos / "000.png", photos / "001.png")


def copy_and_move(photos: Path) -> None:
    shutil.copy(photos / "000.png", photos / "a.png")
    shutil.copy(photos / "000.png", photos / "b.png")
    (photos / "000.png").unlink()


def copy_the_folder(photos: Path) -> None:
    shutil.copytree(photos, photos / "again")


CHANGES = [swap, rotate_over_folders, copy_over_another, copy_and_move, copy_the_folder]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.thorough
def test_files_that_change_places_keep_their_bits(
    change: Callable[[Path], None], photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, index)
    change(photos)
    batches = computed(monkeypatch)
    build(photos, index)
    assert batches == []
    build(photos, photos.parent / "fresh.diffsim")
    assert by_path(index) == by_path(photos.parent / "fresh.diffsim")
    assert verify(index) == []
    again = build(photos, index)
    assert (again.added, again.moved, again.removed) == (0, 0, 0)


@pytest.mark.parametrize("by", ["file", "index"])
def test_an_image_that_is_removed_and_back_keeps_its_id(
    by: str, photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, index)
    before = by_path(index)
    victim, aside = photos / "002.png", photos.parent / "aside.png"
    if by == "file":
        victim.rename(aside)
        assert build(photos, index).removed == 1
        aside.rename(victim)
    else:
        remove_items(index, [str(victim)])
    assert "002.png" not in ids_of(index)
    batches = computed(monkeypatch)
    assert build(photos, index).revived == 1
    assert batches == []
    assert ids_of(index)["002.png"] == 2
    assert by_path(index) == before


def test_a_removed_image_whose_tensors_are_damaged_is_computed_again(photos: Path, index: Path) -> None:
    build(photos, index, modes=["style"])
    before = by_path(index)
    remove_items(index, [str(photos / "*")])
    group = IndexReader(index).layout.attention("style", IndexReader(index).generation.segments[0].name)
    flip_bit(next(path for path in group.glob("q/c/**/*") if path.is_file()), 100)
    report = build(photos, index, modes=["style"])
    assert (report.revived, report.added) == (5, 1)
    assert by_path(index) == before


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("rule", ["eager", "filled", "lazy"])
@pytest.mark.thorough
def test_what_a_compaction_left_out_is_copied_while_the_old_segments_stay(
    rule: str, times: int, photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, index, RUN if rule == "eager" else LAZY)
    if rule == "filled":
        fill(index)
    before = by_path(index) if rule != "lazy" else {}
    remove_items(index, [str(photos / "00[0-3].png")])
    for _ in range(times):
        compact(index)
    batches = computed(monkeypatch)
    report = build(photos, index)
    assert (report.items, report.copied, batches) == (IMAGES, 4, [])
    assert rule == "lazy" or by_path(index) == before
    assert min(ids_of(index)[f"00{number}.png"] for number in range(4)) >= IMAGES, "ids are never given twice"
    assert verify(index) == []


def test_what_a_compaction_left_out_and_can_not_be_read_is_computed_again(photos: Path, index: Path) -> None:
    build(photos, index, modes=["style"])
    before = by_path(index)
    group = IndexReader(index).layout.attention("style", IndexReader(index).generation.segments[0].name)
    remove_items(index, [str(photos / "*")])
    compact(index)
    flip_bit(next(path for path in group.glob("q/c/**/*") if path.is_file()), 100)
    report = build(photos, index, modes=["style"])
    assert (report.items, report.added) == (IMAGES, IMAGES)
    assert by_path(index) == before


def test_what_a_compaction_took_away_is_computed_again(photos: Path, index: Path) -> None:
    build(photos, index)
    before = by_path(index)
    remove_items(index, [str(photos / "000.png")])
    compact(index, now=True)
    assert build(photos, index).added == 1
    assert by_path(index) == before


def test_equal_files_of_one_build_are_computed_once(photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_the_folder(photos)
    batches = computed(monkeypatch)
    report = build(photos, index)
    assert (report.added, report.copied) == (12, 6)
    assert sum(images for images, _, _ in batches) == 6
    both = by_path(index)
    assert all(both[str(photos / path.name)] == both[str(path)] for path in (photos / "again").iterdir())


def test_copies_of_a_broken_file_are_broken(photos: Path, index: Path) -> None:
    for name in ("bad.png", "worse.png"):
        (photos / name).write_bytes(b"no image")
    report = build(photos, index)
    assert (report.items, report.rejected) == (IMAGES, {"not_an_image": 2})


def test_files_that_moved_are_counted_while_they_are_compared(photos: Path, index: Path) -> None:
    build(photos, index)
    photos = photos.rename(photos.parent / "moved")
    events: list[BuildEvent] = []
    build(photos, index, on_progress=events.append)
    assert [(event.done, event.total) for event in events if event.stage == "hash"] == [
        (done, IMAGES) for done in range(1, IMAGES + 1)
    ]
    assert [event.stage for event in events][: IMAGES + 1] == ["hash"] * IMAGES + ["planned"]


def test_a_copy_lacks_what_its_original_lacks_until_both_are_filled(photos: Path, index: Path) -> None:
    build(photos, index, LAZY)
    shutil.copy(photos / "000.png", photos / "copy.png")
    assert build(photos, index, LAZY).copied == 1
    assert fill(index).completed == IMAGES + 1
    both = by_path(index)
    assert both[str(photos / "000.png")] == both[str(photos / "copy.png")]


def test_a_change_of_the_same_size_and_time_is_seen(photos: Path, index: Path) -> None:
    """Other programs can set the time of modification back, but not that of the last change."""
    build(photos, index)
    victim = photos / "003.png"
    status, content = victim.stat(), bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert victim.stat().st_size == status.st_size
    assert build(photos, index).replaced == 1


def test_rehash_reads_everything_and_writes_nothing_where_nothing_changed(photos: Path, index: Path) -> None:
    build(photos, index)
    number = IndexReader(index).generation.number
    assert build(photos, index, replace(RUN, rehash=True)).unchanged == IMAGES
    assert IndexReader(index).generation.number == number


@given(
    contents=st.lists(st.sampled_from("abc"), max_size=6),
    free=st.lists(st.sampled_from("abcd"), max_size=6),
    held=st.sets(st.sampled_from("abcd")),
)
def test_every_item_goes_to_one_file_of_its_content(contents: list[str], free: list[str], held: set[str]) -> None:
    files = [HashedFile(f"/new/{n}", f"/new/{n}", (1, 2, 3), content) for n, content in enumerate(contents)]
    items = [Item(n, f"/old/{n}", 1, 2, content, 1, 1) for n, content in enumerate(free)]
    found = match(files, items, held)
    sorted_files = [*found.moved, *(f.uri for f in found.copies), *(f.uri for f in found.others)]
    assert sorted(sorted_files) == sorted(file.uri for file in files)
    ids = [item.id for item in found.moved.values()]
    assert len(ids) == len(set(ids))
    content_of = {file.uri: file.sha256 for file in files}
    assert all(items[item.id].sha256 == content_of[uri] for uri, item in found.moved.items())
    for content in "abc":
        assert sum(item.sha256 == content for item in found.moved.values()) == min(
            contents.count(content), free.count(content)
        )
        known = content in held or content in free
        computed_files = [file for file in found.others if file.sha256 == content]
        assert len(computed_files) == (0 if known or content not in contents else 1)
