"""A writer clears the leftovers of killed ones, and nothing that is in use."""

import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from index_store.commit import commit
from index_store.files import ABANDONED_SECONDS
from index_store.garbage import clear_uncommitted, drop_expired, retire
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.segment_writer import SegmentWriter
from tests.index_store.small_index import item, read_all


def make_old(path: Path) -> None:
    past = time.time() - ABANDONED_SECONDS - 10
    os.utime(path, (past, past))


def test_leftovers_of_a_killed_writer_go(layout: Layout) -> None:
    before = read_all(layout.root)
    killed = SegmentWriter(layout, "000009")
    killed.move([item(1)])
    killed.finish()
    (layout.root / "projections").mkdir()
    layout.derived.mkdir()
    old = [folder / ".tmp-0" for folder in (layout.root, layout.generations, layout.derived)]
    young = layout.root / ".tmp-1"
    for path in (*old, young, layout.projection("f" * 64)):
        path.write_bytes(b"left")
    for path in old:
        make_old(path)
    clear_uncommitted(layout, read_current(layout))
    assert not layout.segment("000009").exists()
    assert not layout.projection("f" * 64).exists()
    assert [path.exists() for path in old] == [False] * 3
    assert young.exists(), "another process may be about to give it its name"
    assert read_all(layout.root) == before


def test_retired_segments_stay_for_the_searches_that_opened_them(layout: Layout) -> None:
    generation = read_current(layout)
    retired = retire(replace(generation, segments=generation.segments[1:]), ["000002"])
    clear_uncommitted(layout, retired)
    assert drop_expired(layout, retired) == retired
    assert layout.items("000002").exists()
    assert layout.attention("style", "000002").exists()
    expired = drop_expired(layout, retired, timedelta(0))
    assert expired.retired == {}
    assert not layout.segment("000002").exists()
    assert not layout.attention("style", "000002").exists()
    assert layout.items("000003").exists()


def test_a_segment_that_is_retired_in_part_stays_as_long_as_it_is_in_use(layout: Layout) -> None:
    """A repair retires the segment whose parts it takes out; an index from elsewhere may say the same of any."""
    before, parts = read_all(layout.root), retire(read_current(layout), ["000002"])
    commit(layout, parts, "tests")
    clear_uncommitted(layout, read_current(layout))
    assert drop_expired(layout, read_current(layout), timedelta(0)).retired == {}
    assert read_all(layout.root) == before


def test_without_a_generation_everything_goes(layout: Layout) -> None:
    """The very first commit was cut short: vectors of an earlier index at this place mean other images."""
    layout.derived.mkdir()
    clear_uncommitted(layout, None)
    assert list((layout.root / "items").iterdir()) == []
    assert list((layout.root / "attention").glob("*/*")) == []
    assert not layout.derived.exists()
