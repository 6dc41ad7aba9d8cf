"""Commits: which generations stay, and what a commit survives."""

import os
from dataclasses import replace
from datetime import timedelta
from unittest import mock

import pytest

from index_store import garbage
from index_store.commit import commit
from index_store.garbage import retire
from index_store.generation import read_current, read_generation
from index_store.layout import Layout
from index_store.segment_writer import SegmentWriter


def test_only_the_last_eight_generations_are_kept(layout: Layout) -> None:
    generation = read_current(layout)
    for _ in range(9):
        generation = commit(layout, generation, "tests")
    assert generation.number == 12
    names = sorted(path.name for path in layout.generations.iterdir())
    assert names == [f"{number:06d}.{ending}" for number in range(5, 13) for ending in ("json", "spare")]
    assert read_generation(layout.generation(5)).segments == generation.segments


def test_numbers_and_ids_are_above_those_of_generations_that_were_given_up(layout: Layout) -> None:
    given = read_current(layout).next_id
    layout.current.write_text("000001.json")
    generation = commit(layout, read_current(layout), "tests")
    assert (generation.number, generation.next_id) == (4, given)
    assert sorted(path.name for path in layout.generations.glob("*.json")) == [f"00000{n}.json" for n in (1, 2, 3, 4)]


def test_an_old_generation_that_cannot_be_removed_does_not_undo_a_commit(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "KEPT_GENERATIONS", 1)
    monkeypatch.setattr(os, "unlink", mock.Mock(side_effect=OSError(28, "No space left on device")))
    assert commit(layout, read_current(layout), "tests").number == 4
    assert layout.generation(1).exists()
    assert read_current(layout).number == 4


def test_an_operator_reads_in_the_log_what_happened(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    SegmentWriter(layout, "000009").finish()
    with caplog.at_level("INFO", logger="index_store"):
        kept = replace(read_current(layout), segments=read_current(layout).segments[1:])
        generation = commit(layout, retire(kept, ["000002"]), "tests")
        garbage.clear_uncommitted(layout, generation)
        garbage.drop_expired(layout, generation, timedelta(0))
    assert [record.getMessage().removeprefix(f"{layout.root}: ").split(",")[0] for record in caplog.records] == [
        "committed generation 4 of 1 segments",
        "removing segment 000009",
        "removing segment 000002",
    ]
