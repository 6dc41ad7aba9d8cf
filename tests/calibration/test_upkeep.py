"""Builds and fills draw pairs where they are due, from stored tensors, and score them as a search does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index_store.calibration.record import ScoreSample, read_sample
from index_store.errors import IndexCorruptError
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval import Cancellation, Engine, EngineSettings
from retrieval.calibration.sampling import BLOCK, MOST_BYTES, PAIRS, ScoredPairs, plan_pairs, sample_scores
from retrieval.calibration.upkeep import LEAST_IMAGES, modes_due, sample_digest
from retrieval.encoding.recipe import stored_recipe
from retrieval.errors import CancelledError
from retrieval.indexing import training
from retrieval.indexing.fill import fill_index
from retrieval.indexing.reports import BuildEvent
from retrieval.settings import BuildSettings
from tests.indexing.builds import build
from tests.support.sample_index import paint
from tests.support.stub_models import load_tiny

RUN = BuildSettings(device="cpu", batch_size=16, workers=1, segment_rows=64)
MODES = ("style", "semantic")


@pytest.fixture
def photos(tiny: None, tmp_path: Path) -> Path:
    paint(tmp_path / "photos", range(LEAST_IMAGES + 4))
    return tmp_path / "photos"


@pytest.fixture
def index(photos: Path, tmp_path: Path) -> Path:
    build(photos, tmp_path / "x.diffsim", RUN)
    return tmp_path / "x.diffsim"


def sample_of(index: Path, mode: str) -> ScoreSample | None:
    reader = IndexReader(index)
    return read_sample(reader.layout, mode, sample_digest(reader, mode))


def test_a_build_draws_pairs_once_and_again_when_much_has_changed(photos: Path, index: Path) -> None:
    first = sample_of(index, "style")
    assert first is not None
    assert (first.items, first.next_id) == (LEAST_IMAGES + 4, LEAST_IMAGES + 4)
    assert modes_due(IndexReader(index)) == ()
    told: list[str] = []

    def tell(event: BuildEvent) -> None:
        told.extend([event.note] if event.stage == "calibrate" else [])

    paint(photos, range(100, 105))
    build(photos, index, RUN, on_progress=tell)
    assert told == []
    assert sample_of(index, "style") == first
    paint(photos, range(105, 112))
    build(photos, index, RUN, on_progress=tell)
    assert told == list(MODES)
    second = sample_of(index, "style")
    assert second is not None
    assert second.items == LEAST_IMAGES + 16
    assert len(second.scores) > len(first.scores)
    for number in range(14):
        (photos / f"{number:03d}.png").unlink()
    build(photos, index, replace(RUN, gone=True))
    third = sample_of(index, "style")
    assert third is not None
    assert third.items == LEAST_IMAGES + 2


def test_the_same_index_draws_the_same_pairs(photos: Path, index: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "y.diffsim", RUN)
    for mode in MODES:
        one, other = sample_of(index, mode), sample_of(tmp_path / "y.diffsim", mode)
        assert one is not None
        assert other is not None
        assert one.scores == pytest.approx(other.scores, abs=2e-6)


def test_pairs_score_as_a_search_scores_them(photos: Path, index: Path) -> None:
    reader = IndexReader(index)
    recipe = stored_recipe(reader, index)
    models = load_tiny(recipe.settings, recipe.targets, "cpu", True)
    plan = plan_pairs(np.arange(len(reader)), reader.row_bytes("style"), False)
    pairs = ScoredPairs.join(list(sample_scores(reader, models, "style", plan)))
    assert (pairs.first != pairs.second).all()
    assert len(pairs.scores) == plan.pairs
    engine, uris = Engine.open(index, EngineSettings(device="cpu")), reader.uris()
    scores = {r.id: r.score for r in engine.search(uris[pairs.first[0]], "style", exhaustive=True, k=len(reader))}
    asked = pairs.first == pairs.first[0]
    for row, score in zip(pairs.second[asked].tolist(), pairs.scores[asked].tolist(), strict=True):
        assert scores[int(reader.ids[row])] == pytest.approx(score, abs=1e-5)


def test_where_roles_differ_some_images_are_encoded_as_queries(tiny: None, tmp_path: Path) -> None:
    paint(tmp_path / "photos", range(LEAST_IMAGES))
    build(tmp_path / "photos", tmp_path / "sd.diffsim", RUN, model="sd15", modes=["style"])
    found = sample_of(tmp_path / "sd.diffsim", "style")
    assert found is not None
    assert len(found.scores) == 3 * (LEAST_IMAGES - 1)  # a tenth of the images ask, each all others of its block


def test_few_or_lazy_images_get_none_until_a_fill(tiny: None, tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "x.diffsim"
    paint(photos, range(LEAST_IMAGES - 1))
    build(photos, index, replace(RUN, attention="lazy"))
    paint(photos, [LEAST_IMAGES])
    build(photos, index, RUN)
    assert not list(Layout(index).derived.glob("*.scores"))
    fill_index(index, run=RUN)
    assert {path.name for path in Layout(index).derived.iterdir()} == {f"{mode}.scores" for mode in MODES}
    for path in Layout(index).derived.iterdir():
        path.unlink()
    fill_index(index, run=RUN)  # an index from before there were percentiles has nothing else to fill
    assert sample_of(index, "style") is not None


def test_a_failure_leaves_a_build_as_it_is(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise IndexCorruptError("a tensor is damaged")

    monkeypatch.setattr(training, "calibrate", fail)
    assert build(photos, tmp_path / "x.diffsim", RUN).items == LEAST_IMAGES + 4
    assert "no percentiles until the next build: a tensor is damaged" in caplog.text
    monkeypatch.undo()


def test_cancelling_ends_the_drawing(photos: Path, tmp_path: Path) -> None:
    cancel = Cancellation()

    def tell(event: BuildEvent) -> None:
        if event.stage == "calibrate":
            cancel.request()

    with pytest.raises(CancelledError):
        build(photos, tmp_path / "x.diffsim", RUN, on_progress=tell, cancel=cancel)
    assert len(IndexReader(tmp_path / "x.diffsim")) == LEAST_IMAGES + 4


@pytest.mark.parametrize("count", [2, 3, 31, 33, 64, 100, 1000, 5000])
@pytest.mark.parametrize("roles_differ", [False, True])
def test_plans_are_bounded_and_pairs_differ(count: int, roles_differ: bool) -> None:
    plan = plan_pairs(np.arange(count), 4_000_000, roles_differ)
    drawn = np.concatenate(plan.blocks)
    assert len(np.unique(drawn)) == len(drawn) <= max(BLOCK, MOST_BYTES // 4_000_000)
    assert 1 <= plan.pairs <= 1.5 * PAIRS
    assert all(len(block) > 1 for block in plan.blocks)
    assert (plan.asking is not None) == roles_differ
    if plan.asking is not None:
        assert all(0 <= asking <= len(block) for asking, block in zip(plan.asking, plan.blocks, strict=True))
