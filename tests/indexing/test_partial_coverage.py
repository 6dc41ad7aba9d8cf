"""Eager and lazy indexes, and maintenance of an index that is filled in part."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index_store.generation import FORMAT_VERSION, read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.indexing.reports import BuildEvent
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.exporting import export
from retrieval.indexing.upkeep.removing import remove_items
from retrieval.indexing.upkeep.repairing import repair, verify
from retrieval.search.engine import Engine
from tests.indexing.builds import BOTH, LAZY, answers, assert_same_scores, build_modes, coarse_scores, computed, fill
from tests.support.faults import flip_bit
from tests.support.sample_index import RUN, Contents, paint

IMAGES = 10

pytestmark = pytest.mark.usefixtures("tiny")


# --- Eager and lazy


def test_an_index_stays_lazy_until_it_is_told_otherwise(photos: Path, index: Path, whole: Path) -> None:
    assert build_modes(photos, index, BOTH, LAZY).coverage == {"style": 0, "instance": 0}
    paint(photos, [10])
    assert build_modes(photos, index).coverage == {"style": 0, "instance": 0}
    assert Engine.open(index).info()["attention"] == "lazy"
    report = build_modes(photos, index, run=replace(RUN, attention="eager"))
    assert (report.completed, report.coverage) == (11, {"style": 11, "instance": 11})
    build_modes(photos, whole)
    assert Contents.of(index).differences(Contents.of(whole)) == []
    paint(photos, [11])
    assert build_modes(photos, index).coverage == {"style": 12, "instance": 12}
    paint(photos, [12])
    assert build_modes(photos, index, run=LAZY).coverage == {"style": 12, "instance": 12}
    assert Engine.open(index).info()["coverage"] == {"style": 12, "instance": 12}


def test_a_mode_that_is_added_to_a_lazy_index_gets_vectors_only(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_modes(photos, index, ["style"], LAZY)
    batches = computed(monkeypatch)
    build_modes(photos, index, ["instance"])
    assert batches == 5 * [(2, (), ("subject",))]


# --- Maintenance of an index that is filled in part


def test_partial_coverage_survives_compaction_removal_renaming_and_export(
    photos: Path, index: Path, tmp_path: Path
) -> None:
    build_modes(photos, index, BOTH, LAZY)
    fill(index, modes=["style"])

    def stop(event: BuildEvent) -> None:
        if event.stage == "encode" and event.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(index, order=["path"], on_progress=stop)
    remove_items(index, ["001.png", "008.png"])
    (photos / "002.png").rename(photos / "two.png")
    (photos / "001.png").unlink()
    (photos / "008.png").unlink()
    build_modes(photos, index)
    before = read_all(index)
    for now in (False, True):
        assert compact(index, now).items == 8
        assert read_all(index) == before
        assert verify(index) == []
    assert [s.filled for s in read_current(Layout(index)).segments] == [0, 3]
    assert set(read_current(Layout(index)).segments[0].attention) == {"style"}
    export(index, tmp_path / "out")
    assert fill(index).coverage == {"style": 8, "instance": 8}
    compact(index, now=True)
    assert [s.filled for s in read_current(Layout(index)).segments] == [0]
    fresh = tmp_path / "fresh.diffsim"
    build_modes(photos, fresh, BOTH)
    query = photos / "two.png"
    found, expected = answers(index, query), answers(fresh, query)
    assert_same_scores({r.path: r.score for r in found}, {r.path: r.score for r in expected})
    assert_same_scores(coarse_scores(found), coarse_scores(expected))


def read_all(index: Path) -> tuple[object, ...]:
    """Everything that a partly filled index holds."""
    reader = IndexReader(index)
    modes = reader.generation.modes
    tensors = {
        mode: {
            int(reader.ids[row]): [array.tobytes() for array in reader.attention(mode, [row]).values()]
            for row in np.flatnonzero(reader.has_tensors(mode)).tolist()
        }
        for mode in modes
    }
    vectors = {name: reader.stored_vectors(name).tobytes() for name in reader.generation.encoders}
    return reader.items(), tensors, vectors


def test_damage_to_what_was_filled_is_found_taken_out_and_filled_again(photos: Path, index: Path, whole: Path) -> None:
    build_modes(photos, index, BOTH, LAZY)
    fill(index, order=["path"])
    contents = Contents.of(index)
    filled = [s.name for s in read_current(Layout(index)).segments if s.filled]
    flip_bit(index / f"attention/style/{filled[0]}.zarr/k/c/0/0/0/0/0", 80)
    for name in ("filled.npy", "spare/filled.npy"):
        flip_bit(Layout(index).segment(filled[1]) / name, 1100)
    found = verify(index)
    assert len(found) == 3
    assert found[0].rows == (0,)
    assert "filled.npy" in found[1].what
    assert repair(index).damages == found
    assert verify(index) == []
    assert IndexReader(index).ids.tolist() == list(range(10))
    assert IndexReader(index).has_tensors("style").sum() == 5, "without a row, and a segment that nobody can assign"
    assert fill(index).completed == 5
    assert Contents.of(index).differences(contents) == []


def test_an_index_of_format_1_opens_and_grows(photos: Path, index: Path, whole: Path) -> None:
    """As the first version wrote it: without the keys of the second."""
    build_modes(photos, index, ["style"])
    path = max((index / "generations").glob("*.json"))
    body = json.loads(path.read_text())["generation"]
    body["format_version"] = 1
    del body["settings"]["attention"], body["repair_of"]
    for segment in body["segments"]:
        del segment["filled"], segment["lost"]
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    path.write_text(json.dumps({"sha256": digest, "generation": body}))
    assert Engine.open(index).info()["format_version"] == 1
    assert Engine.open(index).info()["attention"] == "eager"
    assert len(answers(index, photos / "000.png", "style")) == 10
    build_modes(photos, index, ["instance"])
    assert read_current(Layout(index)).format_version == FORMAT_VERSION
    assert Contents.of(index).differences(Contents.of(whole)) == []
