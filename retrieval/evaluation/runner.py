"""Run benchmarks with metrics: what ``diffsim-eval bench`` does."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import UsageError
from retrieval.evaluation.benchmarks.own_data import load_videos
from retrieval.evaluation.benchmarks.paper import BenchOptions
from retrieval.evaluation.benchmarks.table import TIKTOK, describe_bench
from retrieval.evaluation.feature_store import FeatureStore, Progress, silent
from retrieval.evaluation.measures import (
    Measurement,
    Ranking,
    accuracy,
    decide,
    rank_groups,
    retrieval_measures,
    variances,
)
from retrieval.evaluation.pairs import PAIRS, measure_pairs, read_pairs
from retrieval.evaluation.triplets import Triplet, need_folder, read_groups
from retrieval.images.decoding import DecodeRules
from retrieval.metrics.base import Metric

ALL = "all"
CATEGORY = "{category}"  # in a prompt: the category of each triplet, as the published code has it for NIGHTS
VOTE = "vote of {}"


@dataclass(frozen=True)
class Run:
    """What a run of benchmarks needs beside its data."""

    metrics: Mapping[str, Metric]
    options: BenchOptions = field(default_factory=BenchOptions)
    rules: DecodeRules = field(default_factory=DecodeRules)
    cache: Path | None = None
    vote: bool = False  # also the majority of the metrics
    progress: Progress = silent
    on_rankings: Callable[[str, str, Sequence[Ranking], Path], None] | None = None  # bench, metric, rankings, folder

    def __post_init__(self) -> None:
        if self.vote:
            check_vote(len(self.metrics))

    def store(self, name: str) -> FeatureStore:
        """Return a store for one metric."""
        return FeatureStore(self.metrics[name], self.rules, self.cache)

    def shown(self, bench: str, metric: str) -> Progress:
        """Return a progress that says what it is about."""
        return lambda task, done, total: self.progress(f"{bench}, {metric}: {task}", done, total)


def check_vote(count: int) -> None:
    """Raise a UsageError where so many metrics can't vote: there could be a tie."""
    if count < 3 or count % 2 == 0:
        raise UsageError(f"a vote needs an odd number of metrics, three or more, not {count}")


def run_bench(bench: str, source: Path, run: Run) -> Iterator[Measurement]:
    """Run one benchmark; measurements come as each metric is done.

    Raises:
        UsageError: an unknown benchmark, or data that are not laid out as it needs; the message says how.
    """
    if bench in (TIKTOK, PAIRS):
        for metric in run.metrics.values():
            metric.need_scores()
    if bench == ALL:
        yield from run_all(source, run)
    elif bench == TIKTOK:
        videos = load_videos(source)
        for name in run.metrics:
            yield from variances(bench, name, run.store(name), videos, run.shown(bench, name))
    elif bench == PAIRS:
        pairs = read_pairs(source)
        for name in run.metrics:
            yield measure_pairs(name, run.store(name), pairs, run.shown(bench, name))
    else:
        yield from _run_one(bench, bench, source, run)


def run_all(folder: Path, run: Run) -> Iterator[Measurement]:
    """Run every set in ``folder``: one with votes.csv or levels.csv by its own protocol, any other as groups.

    Raises:
        UsageError: a folder without sets.
    """
    need_folder(folder, "one folder a set is expected there")
    sets = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not sets:
        raise UsageError(f"{folder} holds no folders: one folder a set is expected")
    for place in sets:
        kinds = [kind for kind in ("votes", "levels") if (place / f"{kind}.csv").is_file()]
        yield from _run_one(kinds[0] if kinds else "groups", place.name, place, run)


def _run_one(kind: str, shown: str, source: Path, run: Run) -> Iterator[Measurement]:
    triplets = describe_bench(kind).load(source, run.options)
    groups = read_groups(source) if kind == "groups" else None
    decisions = []
    for name in run.metrics:
        store = run.store(name)
        if CATEGORY in run.metrics[name].prompt:
            decisions.append(_decide_by_category(name, triplets, run, run.shown(shown, name)))
        else:
            decisions.append(decide(store, triplets, run.shown(shown, name)))
        yield from accuracy(shown, name, triplets, decisions[-1])
        if groups is not None:
            rankings = list(rank_groups(store, groups, run.shown(shown, name)))
            yield from retrieval_measures(shown, name, rankings)
            if run.on_rankings is not None:
                run.on_rankings(shown, name, rankings, source.resolve())
    if run.vote:
        votes = np.sign(np.sum(np.array(decisions) - 0.5, axis=0))
        yield from accuracy(shown, VOTE.format(len(decisions)), triplets, (votes + 1) / 2)


def _decide_by_category(name: str, triplets: Sequence[Triplet], run: Run, progress: Progress) -> NDArray[np.float64]:
    """Decide every triplet under the prompt of its own category.

    Raises:
        UsageError: triplets without categories, or a metric without prompts.
    """
    metric = run.metrics[name]
    if not all(triplet.category for triplet in triplets):
        raise UsageError(f"the prompt names {CATEGORY}, and these triplets have none: only nights has (column prompt)")
    by_prompt: dict[str, list[int]] = {}
    for row, triplet in enumerate(triplets):
        by_prompt.setdefault(metric.prompt.replace(CATEGORY, triplet.category), []).append(row)
    right = np.zeros(len(triplets))
    for prompt, own in metric.prompted(list(by_prompt)).items():
        rows = by_prompt[prompt]
        right[rows] = decide(FeatureStore(own, run.rules, run.cache), [triplets[i] for i in rows], progress)
    return right
