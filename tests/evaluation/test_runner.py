"""Runs of several metrics over benchmarks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from retrieval.errors import CancelledError, UsageError
from retrieval.evaluation.benchmarks.paper import BenchOptions
from retrieval.evaluation.benchmarks.table import describe_bench
from retrieval.evaluation.feature_store import FeatureStore
from retrieval.evaluation.measures import (
    decide,
)
from retrieval.evaluation.report import (
    as_markdown,
)
from retrieval.evaluation.runner import Run, run_bench
from retrieval.images.decoding import DecodeRules
from retrieval.metrics.registry import load_metric
from retrieval.progress import Cancellation, Progress
from tests.slices import loads_model_libraries
from tests.support import bench_trees as trees
from tests.support.paths import DATA

TINY_SD15 = str(DATA / "tiny_sd15")


def test_parts_of_a_benchmark_are_reported_separately(grown: Callable[[str], Path]) -> None:
    found = list(run_bench("votes", grown("votes"), Run({"oracle": trees.Oracle()})))
    assert [(m.part, m.count, m.value) for m in found] == [
        ("", 10, 1.0),
        ("random (unbiased)", 4, 1.0),
        ("selected by the authors", 6, 1.0),
    ]


def test_a_csv_of_triplets_is_measured_and_its_errors_name_the_line(tmp_path: Path) -> None:
    for group in range(3):
        for distance in range(3):
            trees.paint(tmp_path / f"{group}{distance}.png", group, distance)
    file = tmp_path / "mine.csv"
    file.write_text("part,reference,nearer,farther\neasy,00.png,01.png,12.png\nhard,00.png,02.png,01.png\n")
    found = list(run_bench("triplets", file, Run({"oracle": trees.Oracle()})))
    assert {m.part: m.value for m in found} == {"": 0.5, "easy": 1.0, "hard": 0.0}
    file.write_text("reference,nearer,farther\n00.png,01.png,99.png\n")
    with pytest.raises(UsageError, match=r"mine\.csv, line 2: .*99\.png does not exist"):
        list(run_bench("triplets", file, Run({"oracle": trees.Oracle()})))
    file.write_text("reference,near,farther\n")
    with pytest.raises(UsageError, match="has no column nearer; it has: reference, near, farther"):
        list(run_bench("triplets", file, Run({"oracle": trees.Oracle()})))


def test_a_vote_beats_one_bad_member(grown: Callable[[str], Path]) -> None:
    metrics = {"a": trees.Oracle(), "b": trees.Oracle(), "guess": trees.Guess()}
    found = list(run_bench("ip", grown("ip"), Run(metrics, vote=True)))
    whole = {m.metric: m.value for m in found if not m.part}
    assert whole["a"] == whole["vote of 3"] == 1.0 > whole["guess"]
    with pytest.raises(UsageError, match="odd number"):
        Run({"a": trees.Oracle()}, vote=True)


def test_all_sets_of_a_folder_come_into_one_table(tmp_path: Path) -> None:
    trees.votes(tmp_path / "human")
    trees.levels(tmp_path / "lowlevel")
    trees.styles(tmp_path / "style", 4)
    found = list(run_bench("all", tmp_path, Run({"oracle": trees.Oracle(), "guess": trees.Guess()})))
    assert {m.bench for m in found} == {"human", "lowlevel", "style"}
    assert {m.value for m in found if m.metric == "oracle" and m.measure == "triplet accuracy"} == {1.0}
    text = as_markdown(found)
    assert "| benchmark | measure | n | oracle | guess |" in text
    assert "| human: random (unbiased) | triplet accuracy | 4 | 100.0 (51-100) |" in text
    with pytest.raises(UsageError, match="one folder for each set"):
        list(run_bench("all", tmp_path / "none", Run({"oracle": trees.Oracle()})))


@loads_model_libraries
@pytest.mark.thorough
def test_nights_is_measured_under_the_prompt_of_each_category(tmp_path: Path) -> None:
    from retrieval.metrics.base import MetricSettings

    trees.nights(tmp_path, test=0, val=6)
    rows = (tmp_path / "data.csv").read_text().replace(",cat\n", ",dog\n", 3)
    (tmp_path / "data.csv").write_text(rows)
    settings = MetricSettings(
        weights=TINY_SD15,
        image_size=64,
        layer="M",
        prompt="An image of a {category}",
    )
    metric = load_metric("diffsim-s", settings)
    (found,) = (m for m in run_bench("nights", tmp_path, Run({"diffsim-s": metric})) if not m.part)
    assert found.count == 6
    triplets = describe_bench("nights").load(tmp_path, BenchOptions())
    right = 0.0
    for category in ("cat", "dog"):
        own = load_metric("diffsim-s", replace(settings, prompt=f"An image of a {category}"))
        chosen = [triplet for triplet in triplets if triplet.category == category]
        assert len(chosen) == 3
        right += decide(FeatureStore(own, DecodeRules()), chosen).sum()
    assert found.value == right / 6
    both = metric.prompted(["An image of a cat", "An image of a dog"])
    assert both["An image of a dog"].fingerprint() == own.fingerprint()
    assert both["An image of a cat"].fingerprint() != own.fingerprint()
    trees.styles(tmp_path / "styles")
    with pytest.raises(UsageError, match=r"these triplets have none: only nights has"):
        list(run_bench("groups", tmp_path / "styles", Run({"diffsim-s": metric})))
    with pytest.raises(UsageError, match="takes no prompts of categories"):
        load_metric("cells").prompted(["a", "b"])


def test_a_run_that_is_cancelled_keeps_the_features_that_it_computed(tmp_path: Path) -> None:
    trees.styles(tmp_path / "tree", 40)
    cancel = Cancellation()
    told: list[Progress] = []

    def listen(progress: Progress) -> None:
        told.append(progress)
        cancel.request()

    run = Run({"oracle": trees.Oracle()}, cache=tmp_path / "cache", on_progress=listen, cancel=cancel)
    with pytest.raises(CancelledError):
        list(run_bench("groups", tmp_path / "tree", run))
    assert [(p.stage, p.done, p.note) for p in told] == [("images", 64, "groups, oracle: images")]
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 2 * 64
