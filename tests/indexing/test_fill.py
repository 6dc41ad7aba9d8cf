"""Modes and encoders added to an index, fills, and the two ways of an index to have tensors; on the tiny model."""

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.errors import IndexIncompatibleError, NoSpaceError, UsageError
from retrieval.indexing.build import build_index
from retrieval.indexing.fill import fill_index
from retrieval.indexing.maintenance import compact, export, remove_items, repair, verify
from retrieval.indexing.reports import BuildEvent, BuildReport, FillReport
from retrieval.search.engine import Engine
from tests.support.faults import flip_bit
from tests.support.sample_index import RUN, Contents, paint

LAZY = replace(RUN, attention="lazy")
BOTH = ["style", "instance"]


pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten images: segments of four, four and two."""
    paint(tmp_path / "photos", range(10))
    return tmp_path / "photos"


@pytest.fixture
def whole(photos: Path) -> Path:
    """An index of both modes from the start."""
    build(photos, photos.parent / "whole.diffsim", BOTH)
    return photos.parent / "whole.diffsim"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "photos.diffsim"


def build(photos: Path, index: Path, modes: list[str] | None = None, run: Any = RUN, **choices: Any) -> BuildReport:
    return build_index(photos, index, modes=modes, run=run, **{"model": "mini", **choices})


def fill(index: Path, **choices: Any) -> FillReport:
    return fill_index(index, **{"run": RUN, **choices})


def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    """Note of every batch that is encoded from now on: images, modes, encoders."""
    for thread in threading.enumerate():
        if thread.name.startswith("compute"):  # of a build that was interrupted
            thread.join(60)
    batches: list[tuple[int, tuple[str, ...], tuple[str, ...]]] = []
    begin = LoadedModels.begin

    def noting(self: LoadedModels, batch: Any, need: Any = None) -> Any:
        if batch:
            batches.append((len(batch), need.modes, need.encoders))
        return begin(self, batch, need)

    monkeypatch.setattr(LoadedModels, "begin", noting)
    return batches


def answers(index: Path, query: Path, mode: str = "instance", **choices: Any) -> list[tuple[str, Any, Any]]:
    return [(r.path, r.score, r.coarse_score) for r in Engine.open(index).search(query, mode, k=100, **choices)]


# --- Modes and encoders added


def test_a_mode_added_later_gives_the_index_that_had_it_from_the_start(
    photos: Path, index: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, index, ["style"])
    held = {path: path.stat().st_mtime_ns for path in index.rglob("*") if path.is_file() and path.suffix != ".json"}
    paint(photos, [10])
    build(photos, whole)
    batches = computed(monkeypatch)
    report = build(photos, index, ["instance"])
    assert (report.added, report.completed, report.unchanged, report.items) == (1, 10, 10, 11)
    assert batches == [(1, ("style", "instance"), ("descriptor", "subject"))] + 5 * [(2, ("instance",), ("subject",))]
    assert {p: p.stat().st_mtime_ns for p in held if p.name not in ("CURRENT", "LOCK")} == {
        p: time for p, time in held.items() if p.name not in ("CURRENT", "LOCK")
    }, "nothing that was there is written again"
    assert report.coverage == {"style": 11, "instance": 11}
    assert Contents.of(index).differences(Contents.of(whole)) == []
    for mode in BOTH:
        for choices in ({}, {"exhaustive": True}, {"rerank": False}, {"candidates": 3}):
            assert answers(index, photos / "003.png", mode, **choices) == answers(
                whole, photos / "003.png", mode, **choices
            )
    assert Engine.open(index).modes == ("style", "instance")
    assert verify(index) == []
    batches.clear()
    assert build(photos, index, BOTH).completed == 0
    assert batches == []


def test_an_encoder_is_added_alone_and_none_takes_nothing_away(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, index, ["style"])
    batches = computed(monkeypatch)
    report = build(photos, index, encoders={"subject": None})
    assert batches == 5 * [(2, (), ("subject",))]
    assert report.completed == 10
    assert read_current(Layout(index)).encoders == ("descriptor", "subject")
    with pytest.raises(IndexIncompatibleError, match="none asked for"):
        build(photos, index, encoders={})


def test_an_index_without_a_coarse_stage_stays_without_when_a_mode_is_added(photos: Path, index: Path) -> None:
    build(photos, index, ["style"], encoders={})
    build(photos, index, ["instance"])
    assert read_current(Layout(index)).encoders == ()
    assert len(answers(index, photos / "000.png")) == 10


def test_an_addition_that_is_refused_leaves_no_trace(photos: Path, index: Path) -> None:
    build(photos, index, ["style"])
    before = read_current(Layout(index))
    for wrong in ({"modes": ["stile"]}, {"modes": ["instance"], "image_size": 64}, {"encoders": {"sift": None}}):
        with pytest.raises((UsageError, IndexIncompatibleError)):
            build(photos, index, **wrong)
        assert read_current(Layout(index)) == before


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_an_addition_stopped_at_any_batch_goes_on_and_answers_meanwhile(
    photos: Path, index: Path, whole: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, index, ["style"])

    def stop(event: BuildEvent) -> None:
        if event.stage == "encode" and event.done == 2 * number:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(photos, index, ["instance"], on_progress=stop)
    reader = IndexReader(index)
    assert reader.generation.modes == ("style", "instance")
    assert reader.has_tensors("instance").sum() == reader.has_vector("subject").sum() == 2 * number
    assert answers(index, photos / "001.png", exhaustive=True)[0][:2] == answers(whole, photos / "001.png")[0][:2]
    batches = computed(monkeypatch)
    build(photos, index)
    assert batches == (5 - number) * [(2, ("instance",), ("subject",))]
    assert Contents.of(index).differences(Contents.of(whole)) == []


def test_a_mode_of_which_nothing_is_computed_yet_is_searched_by_the_encoders_that_there_are(
    photos: Path, index: Path, whole: Path
) -> None:
    """As a kill leaves it that comes just after the mode was asked for."""
    build(photos, index, ["style"])

    def stop(event: BuildEvent) -> None:
        if event.stage == "loaded":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(photos, index, ["instance"], on_progress=stop)
    assert Engine.open(index).info()["coverage"] == {"style": 10, "instance": 0}
    found = answers(index, photos / "001.png", candidates=10)
    assert [(path, score) for path, score, _ in found] == [r[:2] for r in answers(whole, photos / "001.png")]
    assert [r[2] for r in sorted(found)] == [r[2] for r in sorted(answers(whole, photos / "001.png", "style"))]


def test_files_that_are_gone_or_have_changed_get_no_tensors_of_an_older_image(photos: Path, index: Path) -> None:
    """One source is not mounted, one file was changed in it, in its size or only in its bytes."""
    build(photos, index, ["style"])
    moved = photos.with_name("away")
    shutil.move(photos, moved)
    (photos / "sub").mkdir(parents=True)
    paint(photos / "sub", ["new.png"])
    shutil.copy(moved / "000.png", photos)
    shutil.copy(moved / "001.png", photos)
    content = bytearray((moved / "002.png").read_bytes())
    content[-1] ^= 1
    (photos / "002.png").write_bytes(content)
    report = build(photos / "sub", index, ["instance"])
    assert (report.items, report.added, report.completed, report.incomplete) == (11, 1, 2, 8)
    assert report.coverage == {"style": 11, "instance": 3}
    assert verify(index) == []
    results = Engine.open(index).search(moved / "005.png", "instance", k=100, exhaustive=True)
    assert {Path(r.path).name for r in results} == {"new.png", "000.png", "001.png"}
    assert results.left_out == 8
    assert any("8 candidates are left out" in note.message for note in results.notes)
    assert any("8 images have no vector" in note.message for note in results.notes)
    assert len(Engine.open(index).search(moved / "005.png", "style", k=100)) == 11, "style was not touched"
    shutil.rmtree(photos)
    shutil.move(moved, photos)
    assert build(photos, index).coverage == {"style": 10, "instance": 10}


def test_a_renamed_file_is_completed_where_it_is_now(photos: Path, index: Path) -> None:
    """The only one that lacks anything."""
    build(photos, index, ["style"])
    away = shutil.move(photos / "004.png", photos.parent / "004.png")
    paint(photos.parent / "other", [0])
    assert build(photos.parent / "other", index, ["instance"]).incomplete == 1
    shutil.move(away, photos / "four.png")
    report = build(photos, index)
    assert (report.moved, report.completed, report.incomplete) == (1, 1, 0)
    assert report.coverage == {"style": 11, "instance": 11}


# --- Modes that read the same: sd15's style and lowlevel


@pytest.mark.parametrize("codec", ["qkv-float16", "hidden-int8"])
def test_a_mode_that_reads_what_another_does_is_copied(
    photos: Path, index: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of an item whose file is gone: what is copied was computed from the very bytes that were indexed."""
    sd15: dict[str, Any] = {"model": "sd15", "encoders": {}, "codec": codec}
    build(photos, index.with_name("both.diffsim"), ["style", "lowlevel"], **sd15)
    build(photos, index, ["style"], **sd15)
    away = shutil.move(photos / "004.png", index.with_name("004.png"))
    paint(photos.parent / "other", [0])
    batches = computed(monkeypatch)
    report = build(photos.parent / "other", index, ["lowlevel"], model="sd15")
    assert (report.added, report.completed, report.incomplete) == (1, 10, 0)
    assert [images for images, _, _ in batches] == [1], "the new image's alone"
    shutil.move(away, photos / "004.png")
    build(photos.parent / "other", index.with_name("both.diffsim"), model="sd15")
    assert Contents.of(index).differences(Contents.of(index.with_name("both.diffsim"))) == []
    assert verify(index) == []
    found = answers(index, photos / "001.png", "lowlevel", exhaustive=True)
    assert found == answers(index, photos / "001.png", "style", exhaustive=True)


def test_copying_is_stopped_goes_on_and_leaves_the_rest_to_be_computed(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.indexing.fill.COPIED_ROWS", 3)
    build(photos, index, ["style", "lowlevel"], LAZY, model="sd15", encoders={"clip": None})

    def stop(event: BuildEvent) -> None:
        if event.stage == "encode" and event.done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(index, modes=["style"], on_progress=stop)
    with pytest.raises(KeyboardInterrupt):
        fill(index, modes=["lowlevel"], on_progress=stop)
    assert (IndexReader(index).has_tensors("style").sum(), IndexReader(index).has_tensors("lowlevel").sum()) == (6, 6)
    batches = computed(monkeypatch)
    told: list[tuple[int, int]] = []
    report = fill(index, on_progress=lambda event: told.append((event.done, event.total)))
    assert (report.completed, report.coverage) == (4, {"style": 10, "lowlevel": 10})
    assert batches == 2 * [(2, ("style", "lowlevel"), ())]
    assert told[-1] == (4, 4)
    for array in "qkv":
        contents = Contents.of(index).tensors
        assert contents[f"style/{array}"] == contents[f"lowlevel/{array}"]


def test_what_is_copied_in_part_is_copied_in_batches(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An addition that copies, of an index one of whose modes covers a part, and that adds an encoder as well."""
    monkeypatch.setattr("retrieval.indexing.fill.COPIED_ROWS", 3)
    build(photos, index, ["style"], LAZY, model="sd15", encoders={"clip": None})

    def stop(event: BuildEvent) -> None:
        if event.stage == "encode" and event.done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(index, on_progress=stop)
    batches = computed(monkeypatch)
    run = replace(RUN, attention="eager")
    report = build(photos, index, ["lowlevel"], run, model="sd15", encoders={"dinov2": None})
    assert report.completed == 10
    assert report.coverage == {"style": 10, "lowlevel": 10}
    assert sorted(batches) == 3 * [(2, (), ("dinov2",))] + 2 * [(2, ("style", "lowlevel"), ("dinov2",))]
    assert verify(index) == []


# --- Fill


def test_a_fill_completes_a_lazy_index_in_the_order_that_is_named(
    photos: Path, index: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, path in enumerate(sorted(photos.iterdir())):
        os.utime(path, ns=(0, 10**9 * (100 + (number * 7) % 10)))
    build(photos, whole)
    expected = {
        "newest": [7, 4, 1, 8, 5, 2, 9, 6, 3, 0],
        "oldest": [0, 3, 6, 9, 2, 5, 8, 1, 4, 7],
        "path": list(range(10)),
    }
    alike = [Path(path).name for path, _, _ in answers(whole, photos / "003.png", "style", rerank=False)]
    for order, numbers in expected.items():
        assert filled_order(photos, index, [order], monkeypatch) == [f"{number:03d}.png" for number in numbers]
    assert filled_order(photos, index, [f"like:{photos / '003.png'}"], monkeypatch)[0] == "003.png"
    build(photos, index, ["style"], LAZY)
    assert filled_order(photos, index, ["like:003.png"], monkeypatch, ["style"]) == alike
    two = filled_order(photos, index, ["like:003.png", "like:id:7"], monkeypatch)
    assert sorted(two[:2]) == ["003.png", "007.png"]


def filled_order(
    photos: Path, index: Path, order: list[str], monkeypatch: pytest.MonkeyPatch, modes: list[str] | None = None
) -> list[str]:
    """Build lazily, fill, and return the files in the order in which they were filled."""
    shutil.rmtree(index, ignore_errors=True)
    build(photos, index, modes or BOTH, LAZY)
    assert IndexReader(index).generation.segments[0].attention == {}
    report = fill(index, order=order)
    assert report.coverage == dict.fromkeys(modes or BOTH, 10)
    assert (report.completed, report.adopted, report.incomplete) == (10, 0, 0)
    whole = Contents.of(photos.parent / "whole.diffsim")
    assert Contents.of(index).tensors == {k: v for k, v in whole.tensors.items() if k.split("/")[0] in (modes or BOTH)}
    reader = IndexReader(index)
    ids = [np.load(Layout(index).filled(s.name)) for s in reader.generation.segments if s.filled]
    return [Path(reader.items([int(number)])[0].uri).name for number in np.concatenate(ids)]


@pytest.mark.parametrize("order", [["newer"], ["newest", "path"], ["like:"], ["newest", "like:x.png"], []])
def test_orders_that_make_no_sense_are_refused(photos: Path, index: Path, order: list[str]) -> None:
    build(photos, index, ["style"], LAZY)
    with pytest.raises(UsageError, match="like:QUERY"):
        fill(index, order=order)


def test_a_fill_of_some_modes_and_of_modes_that_are_not_there(photos: Path, index: Path) -> None:
    build(photos, index, BOTH, LAZY)
    assert fill(index, modes=["instance"]).coverage == {"style": 0, "instance": 10}
    with pytest.raises(IndexIncompatibleError, match=r"not for semantic; add what it lacks with: .* --modes semantic"):
        fill(index, modes=["semantic"])
    with pytest.raises(UsageError, match="unknown mode 'stile'"):
        fill(index, modes=["stile"])
    assert fill(index).completed == 10
    assert fill(index).completed == 0


def test_a_fill_that_is_interrupted_keeps_what_it_has_and_goes_on(
    photos: Path, index: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, index, BOTH, LAZY)
    for number in range(1, 5):

        def stop(event: BuildEvent) -> None:
            if event.stage == "encode":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fill(index, on_progress=stop)
        assert IndexReader(index).has_tensors("style").sum() == 2 * number
    batches = computed(monkeypatch)
    assert fill(index).completed == 2
    assert batches == [(2, ("style", "instance"), ())]
    assert Contents.of(index).differences(Contents.of(whole)) == []


def test_a_fill_that_cannot_fit_stops_before_anything_is_stored(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image is 1152 bytes of tensors a mode."""
    build(photos, index, BOTH, LAZY)
    usage = shutil.disk_usage(photos)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * 1152 * 10 - 1))
    with pytest.raises(NoSpaceError, match="would grow by"):
        fill(index)
    assert not list((index / "attention").rglob("*.zarr"))


# --- Eager and lazy


def test_an_index_stays_lazy_until_it_is_told_otherwise(photos: Path, index: Path, whole: Path) -> None:
    assert build(photos, index, BOTH, LAZY).coverage == {"style": 0, "instance": 0}
    paint(photos, [10])
    assert build(photos, index).coverage == {"style": 0, "instance": 0}
    assert Engine.open(index).info()["attention"] == "lazy"
    report = build(photos, index, run=replace(RUN, attention="eager"))
    assert (report.completed, report.coverage) == (11, {"style": 11, "instance": 11})
    build(photos, whole)
    assert Contents.of(index).differences(Contents.of(whole)) == []
    paint(photos, [11])
    assert build(photos, index).coverage == {"style": 12, "instance": 12}
    paint(photos, [12])
    assert build(photos, index, run=LAZY).coverage == {"style": 12, "instance": 12}
    assert Engine.open(index).info()["coverage"] == {"style": 12, "instance": 12}


def test_a_mode_that_is_added_to_a_lazy_index_gets_vectors_only(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, index, ["style"], LAZY)
    batches = computed(monkeypatch)
    build(photos, index, ["instance"])
    assert batches == 5 * [(2, (), ("subject",))]


# --- Maintenance of an index that is filled in part


def test_partial_coverage_survives_compaction_removal_renaming_and_export(
    photos: Path, index: Path, tmp_path: Path
) -> None:
    build(photos, index, BOTH, LAZY)
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
    build(photos, index)
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
    build(photos, fresh, BOTH)
    query = photos / "two.png"
    assert sorted(answers(index, query)) == sorted(answers(fresh, query))


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
    build(photos, index, BOTH, LAZY)
    fill(index, order=["path"])
    contents = Contents.of(index)
    filled = [s.name for s in read_current(Layout(index)).segments if s.filled]
    flip_bit(index / f"attention/style/{filled[0]}.zarr/k/c/0/0/0/0/0", 80)
    flip_bit(Layout(index).filled(filled[1]), 1100)
    found = verify(index)
    assert len(found) == 2
    assert found[0].rows == (0,)
    assert "filled.npy" in found[1].what
    assert repair(index).damages == found
    assert verify(index) == []
    assert IndexReader(index).ids.tolist() == list(range(1, 10)), "a damaged row's item; none of a segment of tensors"
    assert IndexReader(index).has_tensors("style").sum() == 5
    assert build(photos, index).added == 1
    assert fill(index).completed == 5
    again = Contents.of(index)
    assert sorted(again.tensors["style/k"]) == sorted(contents.tensors["style/k"])


def test_an_index_of_format_1_opens_and_grows(photos: Path, index: Path, whole: Path) -> None:
    """As the first version wrote it: without the keys of the second."""
    import json

    from index_store import generation as manifest

    build(photos, index, ["style"])
    path = sorted((index / "generations").iterdir())[-1]
    body = json.loads(path.read_text())["generation"]
    body["format_version"] = 1
    del body["settings"]["attention"]
    for segment in body["segments"]:
        del segment["filled"]
    path.write_text(json.dumps({"sha256": manifest._digest(body), "generation": body}))
    assert Engine.open(index).info()["format_version"] == 1
    assert Engine.open(index).info()["attention"] == "eager"
    assert len(answers(index, photos / "000.png", "style")) == 10
    build(photos, index, ["instance"])
    assert read_current(Layout(index)).format_version == 2
    assert Contents.of(index).differences(Contents.of(whole)) == []
