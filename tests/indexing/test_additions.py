"""Modes and encoders that are added to an index and computed; test_sharing.py has modes that need no computing."""

import shutil
from pathlib import Path

import pytest

from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.errors import IndexIncompatibleError, UsageError
from retrieval.indexing.reports import BuildEvent
from retrieval.indexing.upkeep.repairing import verify
from retrieval.search.engine import Engine
from tests.indexing.builds import (
    BOTH,
    answers,
    assert_same_answers,
    assert_same_scores,
    build_modes,
    coarse_scores,
    computed,
)
from tests.support.ranking import assert_same_ranking
from tests.support.sample_index import Contents, paint

IMAGES = 10

pytestmark = pytest.mark.usefixtures("tiny")


# --- Modes and encoders added


def test_a_mode_added_later_gives_the_index_that_had_it_from_the_start(
    photos: Path, index: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_modes(photos, index, ["style"])
    held = {
        path: path.stat().st_mtime_ns
        for path in index.rglob("*")
        if path.is_file() and path.parent.name != "generations"
    }
    paint(photos, [10])
    build_modes(photos, whole)
    batches = computed(monkeypatch)
    report = build_modes(photos, index, ["instance"])
    assert (report.added, report.completed, report.unchanged, report.items) == (1, 10, 10, 11)
    assert batches == [(1, ("style", "instance"), ("descriptor", "subject"))] + 5 * [(2, ("instance",), ("subject",))]
    assert {p: p.stat().st_mtime_ns for p in held if p.name not in ("CURRENT", "LOCK")} == {
        p: time for p, time in held.items() if p.name not in ("CURRENT", "LOCK")
    }, "nothing that was there is written again"
    assert report.coverage == {"style": 11, "instance": 11}
    assert Contents.of(index).differences(Contents.of(whole)) == []
    for mode in BOTH:
        for choices in ({}, {"exhaustive": True}, {"rerank": False}, {"candidates": 3}):
            found = answers(index, photos / "003.png", mode, **choices)
            assert_same_answers(found, answers(whole, photos / "003.png", mode, **choices))
    assert Engine.open(index).modes == ("style", "instance")
    assert verify(index) == []
    batches.clear()
    assert build_modes(photos, index, BOTH).completed == 0
    assert batches == []


def test_an_encoder_is_added_alone_and_none_takes_nothing_away(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_modes(photos, index, ["style"])
    batches = computed(monkeypatch)
    report = build_modes(photos, index, encoders={"subject": None})
    assert batches == 5 * [(2, (), ("subject",))]
    assert report.completed == 10
    assert read_current(Layout(index)).encoders == ("descriptor", "subject")
    with pytest.raises(IndexIncompatibleError, match="none asked for"):
        build_modes(photos, index, encoders={})


def test_an_index_without_a_coarse_stage_stays_without_when_a_mode_is_added(photos: Path, index: Path) -> None:
    build_modes(photos, index, ["style"], encoders={})
    build_modes(photos, index, ["instance"])
    assert read_current(Layout(index)).encoders == ()
    assert len(answers(index, photos / "000.png")) == 10


def test_an_addition_that_is_refused_leaves_no_trace(photos: Path, index: Path) -> None:
    build_modes(photos, index, ["style"])
    before = read_current(Layout(index))
    for wrong in ({"modes": ["stile"]}, {"modes": ["instance"], "image_size": 64}, {"encoders": {"sift": None}}):
        with pytest.raises((UsageError, IndexIncompatibleError)):
            build_modes(photos, index, **wrong)
        assert read_current(Layout(index)) == before


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
@pytest.mark.thorough
def test_an_addition_stopped_at_any_batch_goes_on_and_answers_meanwhile(
    photos: Path, index: Path, whole: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_modes(photos, index, ["style"])

    def stop(event: BuildEvent) -> None:
        if event.stage == "encode" and event.done == 2 * number:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_modes(photos, index, ["instance"], on_progress=stop)
    reader = IndexReader(index)
    assert reader.generation.modes == ("style", "instance")
    assert reader.has_tensors("instance").sum() == reader.has_vector("subject").sum() == 2 * number
    best, expected = answers(index, photos / "001.png", exhaustive=True)[0], answers(whole, photos / "001.png")[0]
    assert (best.path, best.score) == (expected.path, pytest.approx(expected.score, abs=1e-6))
    batches = computed(monkeypatch)
    build_modes(photos, index)
    assert batches == (5 - number) * [(2, ("instance",), ("subject",))]
    assert Contents.of(index).differences(Contents.of(whole)) == []


def test_a_mode_of_which_nothing_is_computed_yet_is_searched_by_the_encoders_that_there_are(
    photos: Path, index: Path, whole: Path
) -> None:
    """As a kill leaves it that comes just after the mode was asked for."""
    build_modes(photos, index, ["style"])

    def stop(event: BuildEvent) -> None:
        if event.stage == "loaded":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_modes(photos, index, ["instance"], on_progress=stop)
    assert Engine.open(index).info()["coverage"] == {"style": 10, "instance": 0}
    found = answers(index, photos / "001.png", candidates=10)
    assert_same_ranking(found, answers(whole, photos / "001.png"))
    assert_same_scores(coarse_scores(found), coarse_scores(answers(whole, photos / "001.png", "style")))


def test_files_that_are_gone_or_have_changed_get_no_tensors_of_an_older_image(photos: Path, index: Path) -> None:
    """One source is not mounted, one file was changed in it, in its size or only in its bytes."""
    build_modes(photos, index, ["style"])
    moved = photos.with_name("away")
    shutil.move(photos, moved)
    (photos / "sub").mkdir(parents=True)
    paint(photos / "sub", ["new.png"])
    shutil.copy(moved / "000.png", photos)
    shutil.copy(moved / "001.png", photos)
    content = bytearray((moved / "002.png").read_bytes())
    content[-1] ^= 1
    (photos / "002.png").write_bytes(content)
    report = build_modes(photos / "sub", index, ["instance"])
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
    assert build_modes(photos, index).coverage == {"style": 10, "instance": 10}


def test_a_renamed_file_is_completed_where_it_is_now(photos: Path, index: Path) -> None:
    """The only one that lacks anything."""
    build_modes(photos, index, ["style"])
    away = shutil.move(photos / "004.png", photos.parent / "004.png")
    paint(photos.parent / "other", [0])
    assert build_modes(photos.parent / "other", index, ["instance"]).incomplete == 1
    shutil.move(away, photos / "four.png")
    report = build_modes(photos, index)
    assert (report.moved, report.completed, report.incomplete) == (1, 1, 0)
    assert report.coverage == {"style": 11, "instance": 11}
