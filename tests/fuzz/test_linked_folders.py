"""No command looks behind a folder of an index that is a link: inotify hears nothing from the folder it leads to."""

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from index_store.checks.links import FOLDERS
from index_store.errors import IndexCorruptError
from index_store.layout import Layout
from index_store.locate import was_committed
from retrieval import Engine, build_index, fill_index, plan_build, update_index
from retrieval.indexing.sources.upkeep import drop_source, list_sources, relocate_sources
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.exporting import export
from retrieval.indexing.upkeep.merging import merge_indexes
from retrieval.indexing.upkeep.removing import remove_items
from retrieval.indexing.upkeep.repairing import repair, undo_repair, verify
from tests.fuzz.sandbox import Watch
from tests.index_store.small_index import make_index
from tests.support.sample_index import RUN, paint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")

Act = Callable[[Path, Path], object]
ACTS: dict[str, Act] = {
    "build": lambda index, photos: build_index(photos, index, run=RUN),
    "plan": lambda index, photos: plan_build(photos, index, run=RUN),
    "update": lambda index, photos: update_index(index, run=RUN),
    "fill": lambda index, photos: fill_index(index, run=RUN),
    "open": lambda index, photos: Engine.open(index),
    "verify": lambda index, photos: verify(index),
    "repair": lambda index, photos: repair(index),
    "undo": lambda index, photos: undo_repair(index),
    "compact": lambda index, photos: compact(index, now=True),
    "remove": lambda index, photos: remove_items(index, ["id:1"]),
    "merge from": lambda index, photos: merge_indexes(photos.parent / "whole.diffsim", [index]),
    "merge into": lambda index, photos: merge_indexes(index, [index]),
    "export": lambda index, photos: export(index, photos.parent / "exported"),
    "sources": lambda index, photos: list_sources(index),
    "drop": lambda index, photos: drop_source(index, photos),
    "relocate": lambda index, photos: relocate_sources(index, photos, photos.parent),
}


@pytest.mark.parametrize("act", list(ACTS))
def test_nothing_behind_a_linked_folder_is_listed_or_read(tmp_path: Path, act: str) -> None:
    paint(tmp_path / "photos", range(2))
    root, outside = make_index(tmp_path / "x.diffsim", 2).root, tmp_path / "outside"
    for name in FOLDERS:
        (root / name).mkdir(exist_ok=True)
        (root / name).rename(outside)
        (root / name).symlink_to(outside)
        with closing(Watch(outside)) as watch:
            with pytest.raises(IndexCorruptError, match="symbolic link"):
                ACTS[act](root, tmp_path / "photos")
            assert not watch.seen(), f"{act} looked into {name}"
        (root / name).unlink()
        outside.rename(root / name)


@pytest.mark.parametrize("has_current", [True, False])
def test_whether_there_is_an_index_is_not_read_from_elsewhere(tmp_path: Path, has_current: bool) -> None:
    layout, outside = make_index(tmp_path / "x.diffsim", 2), tmp_path / "outside"
    assert was_committed(layout)
    assert not was_committed(Layout(tmp_path / "none.diffsim"))
    layout.generations.rename(outside)
    layout.generations.symlink_to(outside)
    if not has_current:
        layout.current.unlink()
    with closing(Watch(outside)) as watch:
        with pytest.raises(IndexCorruptError, match="symbolic link"):
            was_committed(layout)
        assert not watch.seen()
