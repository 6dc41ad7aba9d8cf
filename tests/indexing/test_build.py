"""Builds that are stopped and resumed, and indexes that are brought up to date. Most run a model of a few numbers."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.search.engine import Engine
from tests.indexing.builds import (
    break_file,
    build,
    files_of,
    ids_of,
    real_build,
    reasons_of,
    refuse_to_compute,
    stop_at,
    touch_later,
)
from tests.slices import EVERY
from tests.support.sample_index import RUN, Contents, paint

pytestmark = pytest.mark.usefixtures("tiny")


# --- Stopped and resumed


@pytest.mark.parametrize(
    ("stage", "count"), [("planned", 1), ("model", 1), ("loaded", 1), ("encode", 6), ("commit", 3)]
)
@pytest.mark.thorough
def test_a_build_interrupted_at_any_event_keeps_what_it_has_and_resumes_to_the_same_index(
    photos: Path, tmp_path: Path, stage: str, count: int
) -> None:
    break_file(photos / "004.png")
    build(photos, tmp_path / "whole.diffsim")
    whole = Contents.of(tmp_path / "whole.diffsim")
    for number in range(1, count + 1, 1 if EVERY else 2):
        index = tmp_path / f"{number}.diffsim"
        with pytest.raises(KeyboardInterrupt):
            build(photos, index, on_progress=stop_at(stage, number))
        if stage in ("encode", "commit"):
            kept = Contents.of(index)
            assert len(kept.items) + len(kept.rejects) == min({"encode": 2, "commit": 4}[stage] * number, 11)
            assert kept.differences(replace(whole.first(len(kept.items)), rejects=kept.rejects)) == []
        assert build(photos, index).items == 10
        assert Contents.of(index).differences(whole) == [], f"interrupted at {stage} {number}"
        build(photos, index, on_progress=refuse_to_compute)


def test_a_build_interrupted_after_every_batch_gets_one_batch_further_each_time(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "whole.diffsim")
    for runs in range(1, 7):
        with pytest.raises(KeyboardInterrupt):
            build(photos, tmp_path / "stopped.diffsim", on_progress=stop_at("encode", 1))
        assert len(IndexReader(tmp_path / "stopped.diffsim")) == min(2 * runs, 11)
    build(photos, tmp_path / "stopped.diffsim", on_progress=refuse_to_compute)
    whole = Contents.of(tmp_path / "whole.diffsim")
    assert Contents.of(tmp_path / "stopped.diffsim").differences(whole) == []


def test_the_embedded_model_computes_the_same_bits_after_an_interruption(photos: Path, tmp_path: Path) -> None:
    real_build(photos, tmp_path / "whole.diffsim")
    for number in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            real_build(photos, tmp_path / "stopped.diffsim", on_progress=stop_at("encode", number))
    real_build(photos, tmp_path / "stopped.diffsim")
    whole = Contents.of(tmp_path / "whole.diffsim")
    assert len(whole.items) == 11
    assert Contents.of(tmp_path / "stopped.diffsim").differences(whole) == []


def test_segments_are_committed_by_size_or_by_age(photos: Path, tmp_path: Path) -> None:
    """How the rows are cut into segments changes nothing that is read."""
    rows = {}
    for name, run in (
        ("size", RUN),
        ("age", replace(RUN, commit_seconds=0.0)),
        ("one", replace(RUN, segment_rows=1000)),
        ("small", replace(RUN, segment_rows=1, batch_size=1)),
    ):
        build(photos, tmp_path / f"{name}.diffsim", run)
        reader = IndexReader(tmp_path / f"{name}.diffsim")
        rows[name] = [segment.rows for segment in reader.generation.segments]
        assert Contents.of(tmp_path / f"{name}.diffsim").differences(Contents.of(tmp_path / "size.diffsim")) == []
    assert rows == {"size": [4, 4, 3], "age": [2, 2, 2, 2, 2, 1], "one": [11], "small": [1] * 11}


def test_what_a_killed_writer_left_is_cleared_by_the_next_one(photos: Path, index: Path) -> None:
    build(photos, index)
    before, files = Contents.of(index), files_of(index)
    layout = Layout(index)
    shutil.copytree(layout.segment("000002"), layout.segment("000005"))
    shutil.copytree(layout.attention("style", "000002"), layout.attention("style", "000005"))
    layout.segment("000077").mkdir()
    assert Contents.of(index) == before
    build(photos, index, on_progress=refuse_to_compute)
    assert files_of(index) == files
    paint(photos, [11])
    build(photos, index)
    assert Contents.of(index).first(11) == before


@pytest.mark.parametrize("left", ["LOCK", "generations/.tmp-0123", "generations/000001.json", ".tmp-0123"])
def test_a_build_killed_before_its_first_commit_starts_anew(photos: Path, index: Path, left: str) -> None:
    (index / "generations").mkdir(parents=True)
    (index / "LOCK").touch()
    (index / left).write_bytes(b"{")
    if left == "LOCK":
        (index / "generations").rmdir()
    assert build(photos, index).items == 11
    assert len(IndexReader(index)) == 11


# --- Brought up to date


def test_nothing_to_do_computes_and_writes_nothing(photos: Path, index: Path) -> None:
    first = build(photos, index)
    assert (first.items, first.added, first.replaced, first.unchanged) == (11, 11, 0, 0)
    files = files_of(index)
    again = build(photos, index, on_progress=refuse_to_compute)
    assert files_of(index) == files
    assert (again.items, again.added, again.replaced, again.unchanged) == (11, 0, 0, 11)
    assert again.to_dict()["schema"] == 1


def test_new_files_are_added_behind_the_old_ones(photos: Path, index: Path) -> None:
    build(photos, index)
    before, files = Contents.of(index), files_of(index)
    paint(photos, ["000a.png", "zzz.png"])
    report = build(photos, index)
    assert (report.items, report.added, report.unchanged) == (13, 2, 11)
    assert ids_of(index)["000a.png"] == 11
    assert ids_of(index)["zzz.png"] == 12
    assert Contents.of(index).first(11) == before
    assert {path: state for path, state in files_of(index).items() if path in files and "CURRENT" not in path} == {
        path: state for path, state in files.items() if "CURRENT" not in path
    }, "committed files are never written again"


def test_a_changed_file_replaces_its_old_row_and_ids_are_never_reused(photos: Path, index: Path) -> None:
    build(photos, index)
    victim = photos / "010.png"  # the last id
    for round_number in range(1, 4):
        paint(photos, ["010.png"], seed=round_number)
        os.utime(victim, ns=(0, round_number * 10**9))
        report = build(photos, index)
        assert (report.items, report.added, report.replaced, report.unchanged) == (11, 1, 1, 10)
        assert ids_of(index) == {f"{number:03d}.png": number for number in range(10)} | {"010.png": 10 + round_number}
        results = Engine.open(index).search(victim, "style", exhaustive=True, k=100)
        assert sorted(result.id for result in results) == [*range(10), 10 + round_number]
        assert results[0].id == 10 + round_number
        assert results[0].score == pytest.approx(1, abs=1e-3)
    assert IndexReader(index).generation.tombstones == (10, 11, 12)


def test_a_file_is_changed_when_its_bytes_are_others_whatever_its_size_and_time(photos: Path, index: Path) -> None:
    build(photos, index)
    before = Contents.of(index)
    same, longer, other = (photos / name for name in ("003.png", "005.png", "007.png"))
    touch_later(same)
    status = longer.stat()
    with longer.open("ab") as file:
        file.write(b"\0")
    os.utime(longer, ns=(status.st_atime_ns, status.st_mtime_ns))
    content = bytearray(other.read_bytes())
    content[-1] ^= 1  # in the last checksum, which decoders pass over
    other.write_bytes(content)
    touch_later(other)
    report = build(photos, index)
    assert (report.items, report.moved, report.replaced) == (11, 1, 2)
    assert [ids_of(index)[path.name] for path in (same, longer, other)] == [3, 11, 12]
    assert [row for row in Contents.of(index).tensors["style/q"] if row not in before.tensors["style/q"]] == []
    build(photos, index, on_progress=refuse_to_compute)


def test_a_file_that_broke_is_no_item_any_more_and_comes_back_when_mended(photos: Path, index: Path) -> None:
    build(photos, index)
    break_file(photos / "003.png")
    report = build(photos, index)
    assert (report.items, report.added, report.replaced) == (10, 0, 0)
    assert reasons_of(index) == {"003.png": "not_an_image"}
    build(photos, index, on_progress=refuse_to_compute)
    paint(photos, [3])
    report = build(photos, index, on_progress=refuse_to_compute)
    assert (report.added, report.revived) == (0, 1)
    assert ids_of(index)["003.png"] == 3
    assert reasons_of(index) == {}
