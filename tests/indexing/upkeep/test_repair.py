"""Repairs: they keep all that can still be read, take nothing for damage that is none, and can be undone."""

import errno
import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from index_store.garbage import prepare_to_write
from index_store.generation import read_current, read_current_name
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.errors import IndexCorruptError, IndexUnreadableError, UsageError
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.removing import remove_items
from retrieval.indexing.upkeep.repairing import repair, undo_repair, verify
from tests.indexing.builds import LAZY, build, files_of, fill
from tests.indexing.upkeep.test_damage import damage
from tests.support.faults import place_of
from tests.support.sample_index import Contents, paint

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.mark.parametrize("compacted", [False, True])
def test_a_generation_is_put_together_from_the_segments(built: tuple[Path, Path], compacted: bool) -> None:
    """Both copies of every generation are lost: the images removed since the newest segment are back, nothing else."""
    folder, index = built
    remove_items(index, ["a/001.png"])
    paint(folder / "a", ["new.png", "002.png"], seed=5)
    (folder / "a" / "001.png").unlink()
    build(folder, index)
    if compacted:
        compact(index)
    whole = Contents.of(index)
    remove_items(index, ["a/000.png"])
    for path in (index / "generations").iterdir():
        damage(path)
    assert len(verify(index)) == 2
    assert repair(index).items == len(whole.items)
    assert verify(index) == []
    assert Contents.of(index).differences(whole) == []
    assert build(folder, index).unchanged == len(whole.items)


def test_a_compaction_that_was_cut_short_does_not_hide_the_segments_that_it_merges(
    built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, index = built
    whole = Contents.of(index)
    shutil.copytree(index, index.with_name("kept.diffsim"))
    monkeypatch.setattr("retrieval.indexing.upkeep.compacting.COMPACT_ROWS", 4)
    compact(index, now=True)
    kept = index.with_name("kept.diffsim")
    merged = sorted((index / "items").iterdir())[0]
    shutil.copytree(merged, kept / "items" / merged.name)
    for path in (kept / "generations").iterdir():
        damage(path)
    repair(kept)
    assert Contents.of(kept).differences(whole) == []


def test_without_generations_and_segments_there_is_nothing_to_repair(built: tuple[Path, Path]) -> None:
    _, index = built
    for path in (index / "generations").iterdir():
        damage(path)
    shutil.rmtree(index / "items")
    assert len(verify(index)) == 2
    with pytest.raises(IndexCorruptError, match="build it anew"):
        repair(index)


def test_only_where_both_lists_of_its_images_are_lost_a_segment_goes_and_comes_back(built: tuple[Path, Path]) -> None:
    folder, index = built
    lists = [index / "items" / "000003" / name for name in ("items.parquet", "spare/items.parquet")]
    content = lists[0].read_bytes()
    for path in lists:
        damage(path)
    found = repair(index)
    assert (found.items_before, found.items, found.restored) == (10, 6, 0)
    for path in lists:
        path.write_bytes(content)
    assert undo_repair(index).items == 10
    assert verify(index) == []
    with pytest.raises(UsageError, match="no repair"):
        undo_repair(index)
    assert build(folder, index).unchanged == 10


def test_a_repair_can_be_undone_for_a_day_also_after_the_next_writer_cleared_the_disk(built: tuple[Path, Path]) -> None:
    _, index = built
    victim = index / "items/000003/vectors/descriptor.npy"
    content = victim.read_bytes()
    damage(victim)
    assert repair(index).incomplete == {"descriptor": 4}
    prepare_to_write(Layout(index), read_current(Layout(index)))
    victim.write_bytes(content)
    undo_repair(index)
    assert verify(index) == []
    assert IndexReader(index).has_vector("descriptor").all()


@pytest.mark.parametrize(
    ("victim", "code"),
    [
        ("items.parquet", errno.EACCES),
        ("filled.npy", errno.EPERM),
        ("descriptor.npy", errno.EIO),
        ("0", errno.EMFILE),
        ("the generation", errno.ENOMEM),
        ("CURRENT", errno.ESTALE),
    ],
)
def test_a_file_that_the_system_refuses_to_read_is_no_damage(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch, victim: str, code: int
) -> None:
    build(photos, index, LAZY)
    fill(index, modes=["style"])
    before = files_of(index)
    own_open, own_descriptor = io.open, os.open

    def refuse(path: object, dir_fd: int | None = None) -> None:
        place = place_of(path, dir_fd)
        if place.name == victim and place.is_relative_to(index):
            raise OSError(code, os.strerror(code))

    def open_file(path: Any, *arguments: Any, **options: Any) -> Any:
        refuse(path)
        return own_open(path, *arguments, **options)

    def open_descriptor(path: Any, *arguments: Any, **options: Any) -> Any:
        refuse(path, options.get("dir_fd"))
        return own_descriptor(path, *arguments, **options)

    victim = victim if victim != "the generation" else read_current_name(Layout(index))
    with monkeypatch.context() as patch:
        patch.setattr(io, "open", open_file)
        patch.setattr(os, "open", open_descriptor)
        with pytest.raises(IndexUnreadableError, match="nothing was taken out") as caught:
            repair(index)
    assert caught.value.exit_code != 0
    assert files_of(index) == before
    assert verify(index) == []


def test_an_index_in_a_folder_whose_name_is_not_utf8_is_whole(built: tuple[Path, Path]) -> None:
    _, index = built
    odd = Path(os.fsdecode(os.fsencode(index.parent) + b"/caf\xe9.diffsim"))
    try:
        index.rename(odd)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    assert verify(odd) == []
    assert repair(odd).items == 10
