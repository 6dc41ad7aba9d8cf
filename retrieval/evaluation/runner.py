"""Run benchmarks with metrics."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import UsageError
from retrieval.evaluation.benchmarks.own_data import load_videos
from retrieval.evaluation.benchmarks.paper import BenchOptions
from retrieval.evaluation.benchmarks.table import TIKTOK, describe_bench
from retrieval.evaluation.feature_store import FeatureStore
from retrieval.evaluation.measures import (
    JudgedRanking,
    Measurement,
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
from retrieval.metrics.ensemble import check_voters, vote
from retrieval.progress import Cancellation, OnProgress, Progress, ignore_progress

ALL = "all"
CATEGORY = "{category}"  # a prompt's placeholder for each triplet's category, as in the published code for NIGHTS
VOTE = "vote of {}"


@dataclass(frozen=True)
class Run:
    """How benchmarks are run: everything except their data."""

    metrics: Mapping[str, Metric]
    options: BenchOptions = field(default_factory=BenchOptions)
    rules: DecodeRules = field(default_factory=DecodeRules)
    cache: Path | None = None
    vote: bool = False  # measure the majority of the metrics too
    on_progress: OnProgress = ignore_progress
    cancel: Cancellation | None = None  # looked at between batches; complete features stay in the cache
    on_rankings: Callable[[str, str, Sequence[JudgedRanking], Path], None] | None = None  # bench, metric, ..., folder

    def __post_init__(self) -> None:
        if self.vote:
            check_voters(len(self.metrics))

    def store(self, name: str) -> FeatureStore:
        """Return the feature store of one metric."""
        return FeatureStore(self.metrics[name], self.rules, self.cache)

    def listener(self, subject: str, metric: str) -> OnProgress:
        """Return a listener that names the work in its notes, and ends it if the run was cancelled."""

        def listen(progress: Progress) -> None:
            if self.cancel is not None:
                self.cancel.check()
            self.on_progress(replace(progress, note=f"{subject}, {metric}: {progress.note or progress.stage}"))

        return listen


def run_bench(bench: str, source: Path, run: Run) -> Iterator[Measurement]:
    """Run one benchmark, and yield measurements as each metric finishes.

    Raises:
        UsageError: an unknown benchmark, or data in another layout than it needs.
        CancelledError: the run was asked to stop.
    """
    if bench in (TIKTOK, PAIRS):
        for metric in run.metrics.values():
            metric.need_scores()
    if bench == ALL:
        yield from run_all(source, run)
    elif bench == TIKTOK:
        videos = load_videos(source)
        for name in run.metrics:
            yield from variances(bench, name, run.store(name), videos, run.listener(bench, name))
    elif bench == PAIRS:
        pairs = read_pairs(source)
        for name in run.metrics:
            yield measure_pairs(name, run.store(name), pairs, run.listener(bench, name))
    else:
        yield from _run_one(bench, bench, source, run)


def run_all(folder: Path, run: Run) -> Iterator[Measurement]:
    """Run every set in ``folder``; see :func:`sets_below`."""
    for kind, home in sets_below(folder):
        yield from _run_one(kind, home.name, home, run)


def sets_below(folder: Path) -> list[tuple[str, Path]]:
    """Return the benchmark and the folder of every set in ``folder``.

    A set with votes.csv or levels.csv has its own protocol; any other is one of groups.

    Raises:
        UsageError: a folder without sets.
    """
    need_folder(folder, "one folder for each set is expected there")
    sets = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not sets:
        raise UsageError(f"{folder} holds no folders: one folder for each set is expected")
    own = [[kind for kind in ("votes", "levels") if (home / f"{kind}.csv").is_file()] for home in sets]
    return [(kinds[0] if kinds else "groups", home) for kinds, home in zip(own, sets, strict=True)]


def _run_one(kind: str, title: str, source: Path, run: Run) -> Iterator[Measurement]:
    triplets = describe_bench(kind).load(source, run.options)
    groups = read_groups(source) if kind == "groups" else None
    decisions = []
    for name in run.metrics:
        store = run.store(name)
        if CATEGORY in run.metrics[name].prompt:
            decisions.append(_decide_by_category(name, triplets, run, run.listener(title, name)))
        else:
            decisions.append(decide(store, triplets, run.listener(title, name)))
        yield from accuracy(title, name, triplets, decisions[-1])
        if groups is not None:
            rankings = list(rank_groups(store, groups, run.listener(title, name)))
            yield from retrieval_measures(title, name, rankings)
            if run.on_rankings is not None:
                run.on_rankings(title, name, rankings, source.resolve())
    if run.vote:
        yield from accuracy(title, VOTE.format(len(decisions)), triplets, vote(np.array(decisions) - 0.5))


def _decide_by_category(
    name: str, triplets: Sequence[Triplet], run: Run, on_progress: OnProgress
) -> NDArray[np.float64]:
    """Decide every triplet under the prompt of its own category.

    Raises:
        UsageError: triplets without categories, or a metric that takes no prompts.
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
        right[rows] = decide(FeatureStore(own, run.rules, run.cache), [triplets[i] for i in rows], on_progress)
    return right
