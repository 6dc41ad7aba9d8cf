"""A comparison with the embedded model on drawn pictures, against the runner of benchmarks."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.errors import CancelledError, UsageError
from retrieval.evaluation.benchmarks.paper import BenchOptions
from retrieval.evaluation.comparison.costs import PeakMemory, median_ms
from retrieval.evaluation.comparison.labelled_sets import LabelledSet, load_sets
from retrieval.evaluation.comparison.measuring import ModelComparison, compare, models_at_hand
from retrieval.evaluation.comparison.results import SetResult
from retrieval.evaluation.comparison.summary import quality_of
from retrieval.evaluation.feature_store import FeatureStore
from retrieval.evaluation.measures import decide, rank_groups, retrieval_measures
from retrieval.evaluation.triplets import draw_triplets, read_groups
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.metrics.registry import load_metric
from retrieval.models.registry import load_embedder
from retrieval.progress import Cancellation, Progress

HOW = ModelComparison(models=["cells"], modes=["style"], offline=True, device="cpu")
RULES = DecodeRules()


@pytest.fixture(scope="module")
def folder(gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three groups of five of the drawn pictures."""
    place = tmp_path_factory.mktemp("compared") / "groups"
    for group in sorted(path for path in gallery.iterdir())[:3]:
        (place / group.name).mkdir(parents=True)
        for path in sorted(group.iterdir())[:5]:
            os.link(path, place / group.name / path.name)
    return place


@pytest.fixture(scope="module")
def drawn(folder: Path) -> LabelledSet:
    (found,) = load_sets("groups", folder, BenchOptions())
    return found


@pytest.fixture(scope="module")
def measured(drawn: LabelledSet) -> tuple[list[SetResult], list[Progress]]:
    heard: list[Progress] = []
    return list(compare([drawn], replace(HOW, grey=True, on_progress=heard.append))), heard


def test_the_exact_map_is_that_of_the_benchmark(measured: tuple[list[SetResult], list[Progress]], folder: Path) -> None:
    store = FeatureStore(load_metric("cells"), RULES)
    wanted = {m.measure: m.value for m in retrieval_measures("x", "y", list(rank_groups(store, read_groups(folder))))}
    plain = measured[0][0]
    assert (plain.measure, plain.images, plain.queries) == ("mAP", 15, 15)
    assert plain.modes["style"].counts == [5] * 3
    assert quality_of([plain.modes["style"]]).exact.value == pytest.approx(wanted["mAP"], abs=2e-3)


def test_the_coarse_map_is_that_of_the_modes_encoder(
    measured: tuple[list[SetResult], list[Progress]], drawn: LabelledSet
) -> None:
    import torch

    encoder = load_embedder("descriptor", None, torch.device("cpu"), offline=True)
    rules = DecodeRules(draft=144)
    vectors = encoder.embed(np.stack([encoder.prepare(read_image(path, rules)[0]) for path in drawn.images]))
    scores = (vectors @ vectors.T).astype(np.float64)
    values = [value for row, query in enumerate(drawn.images) for _, value in drawn.judge(query, scores[row])]
    assert quality_of([measured[0][0].modes["style"]]).coarse.value == pytest.approx(np.mean(values), abs=2e-3)


def test_greyscale_copies_are_harder_and_have_no_cost(measured: tuple[list[SetResult], list[Progress]]) -> None:
    plain, grey = measured[0]
    assert (plain.grey, grey.grey, grey.cost) == (False, True, None)
    assert sum(grey.modes["style"].exact) < sum(plain.modes["style"].exact)


def test_costs_are_plausible(measured: tuple[list[SetResult], list[Progress]]) -> None:
    cost = measured[0][0].cost
    assert cost is not None
    assert 0.5 < cost.images_per_s < 1e5
    assert 5_000 < cost.bytes_an_image < 25_000, (
        "a map of 15.4 kB before compression, vectors, and a share of fixed files"
    )
    assert cost.candidates == 15, "no more than there are images"
    assert 0 < cost.search_ms["style"] < 60_000
    assert cost.peak_mb > 50


def test_progress_counts_every_step_once(measured: tuple[list[SetResult], list[Progress]]) -> None:
    steps = [(progress.done, progress.total) for progress in measured[1]]
    assert steps[-1] == (60, 60), "15 images and 15 queries, twice"
    assert steps == sorted(steps)


def test_triplets_are_decided_as_the_benchmark_does(folder: Path) -> None:
    triplets = draw_triplets(read_groups(folder), 40, seed=5)
    images = sorted({path for t in triplets for path in (t.nearer, t.farther)})
    given = LabelledSet("drawn", images, sorted({t.reference for t in triplets}), triplets=triplets)
    (found,) = compare([given], HOW)
    wanted = decide(FeatureStore(load_metric("cells"), RULES), triplets)
    assert found.modes["style"].counts == [1] * 40
    assert found.measure == "accuracy"
    assert np.sum(found.modes["style"].exact) == pytest.approx(wanted.sum(), abs=1)


def test_what_was_measured_is_not_measured_again_unless_it_changed(drawn: LabelledSet, tmp_path: Path) -> None:
    for group in ("a", "b"):
        (tmp_path / group).mkdir()
        for path in [path for path in drawn.images if drawn.groups[path] == sorted(set(drawn.groups.values()))[0]][:2]:
            Image.open(path).save(tmp_path / group / path.name)
    (small,) = load_sets("groups", tmp_path, BenchOptions())
    first = list(compare([small], HOW))
    assert list(compare([small], HOW, first)) == []
    assert [each.key for each in compare([small], replace(HOW, modes=["instance"]), first)] == [first[0].key]
    os.utime(small.images[0], (1, 1))
    assert [each.key for each in compare([small], HOW, first)] == [first[0].key]
    (tmp_path / "a" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"1 of 5 images can't be used \(1 not_an_image\)"):
        list(compare(load_sets("groups", tmp_path, BenchOptions()), HOW))


def test_a_comparison_stops_when_it_is_asked_to(drawn: LabelledSet) -> None:
    cancel = Cancellation()
    work = compare([drawn], replace(HOW, cancel=cancel, on_progress=lambda progress: cancel.request()))
    with pytest.raises(CancelledError):
        next(work)


def test_models_without_weights_are_at_hand() -> None:
    assert "cells" in models_at_hand()


@pytest.mark.parametrize(
    ("models", "modes", "message"),
    [
        (["nonsense"], None, "unknown model 'nonsense'"),
        (["cells"], ["nonsense"], "unknown mode 'nonsense'; cells has"),
        ([], None, "needs at least one model"),
    ],
)
def test_unknown_names_are_refused(
    models: list[str], modes: list[str] | None, message: str, drawn: LabelledSet
) -> None:
    with pytest.raises(UsageError, match=message):
        list(compare([drawn], replace(HOW, models=models, modes=modes)))


def test_peak_memory_hears_of_memory_that_was_given_back() -> None:
    with PeakMemory() as before:
        pass
    with PeakMemory() as peak:
        block = np.ones(25_000_000)
        spent = sum(float(block.sum()) for _ in range(20))
        del block
    assert spent == 20 * 25_000_000
    assert peak.bytes - before.bytes > 150e6


def test_the_median_leaves_the_first_call_out() -> None:
    calls: list[int] = []
    assert median_ms([lambda: calls.append(1) or sum(range(3_000_000)), *[lambda: calls.append(1)] * 3]) < 5
    assert len(calls) == 4
