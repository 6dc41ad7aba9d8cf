"""``diffsim-eval coarse-recall``: how much of the exact ranking the coarse stage lets through."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli import options
from cli.eval import options as opt
from cli.eval.loading import load_all, numbers_of, weights_by_metric
from cli.output import print_json
from cli.process import say, work_offline
from cli.progress import QUERIES, TaskProgress
from index_store.locate import is_index
from index_store.remote.object_store import is_url
from retrieval.errors import UsageError
from retrieval.metrics.base import MetricSettings
from retrieval.settings import EngineSettings
from retrieval.types import DeviceName

if TYPE_CHECKING:
    from retrieval.evaluation.candidate_recall import Recall

coarse = typer.Typer()
DEVICE = EngineSettings().device
ENCODER = "descriptor"  # of a folder, unless another is named


@coarse.command("coarse-recall")
def coarse_recall(
    place: opt.FolderOrIndex,
    metric: opt.CoarseMetric = None,
    encoder: opt.CoarseEncoder = None,
    candidates: opt.CandidateCounts = "10,20,50,100,200",
    k: opt.Neighbours = 10,
    queries: opt.QueryCount = 200,
    seed: opt.QuerySeed = 0,
    weights: opt.Weights = None,
    device: options.Device = DEVICE,
    offline: options.Offline = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure how many of the exact nearest images the coarse stage lets through, and for how many queries all.

    Of an index: its own coarse stage, in all its modes. Of a folder of images: any metric after any encoder.
    """
    work_offline(offline)
    counts = numbers_of(candidates)
    of_index = is_url(place) or is_index(Path(place))
    with TaskProgress(quiet, counted=QUERIES) as progress:
        if of_index:
            if metric is not None or encoder is not None or weights:
                raise UsageError(
                    f"{place} is an index with a model of its own: leave --metric, --encoder, --weights out"
                )
            found = _recall_of_index(place, counts, k, queries, seed, EngineSettings(device, offline=offline), progress)
        else:
            chosen = encoder or ENCODER
            found = _recall_of_folder(Path(place), metric, chosen, counts, k, weights, device, offline, progress)
    if as_json:
        where = {"index" if of_index else "folder": place}
        print_json({"schema": 1, **where, "recalls": [asdict(row) for row in found]})
        return
    for row in found:
        print(
            f"{row.of}: of the exact top {row.k}, {100 * row.recall:.1f} % are among {row.candidates} candidates, "
            f"and all of them for {100 * row.whole:.1f} % of {row.queries} queries"
        )
    if min(counts) < k and not quiet:
        say(f"note: of {k} nearest images {min(counts)} candidates can hold {100 * min(counts) / k:.0f} % at most")


def _recall_of_index(
    place: str,
    counts: Sequence[int],
    k: int,
    queries: int,
    seed: int,
    settings: EngineSettings,
    progress: TaskProgress,
) -> "list[Recall]":
    from retrieval.evaluation.candidate_recall import index_recall
    from retrieval.search.engine import Engine

    engine = Engine.open(place, settings)
    shown = progress.overall("coarse recall", len(engine.modes))
    return index_recall(engine, counts, k, queries, seed, shown)


def _recall_of_folder(
    folder: Path,
    metric: str | None,
    encoder: str,
    counts: Sequence[int],
    k: int,
    weights: list[str] | None,
    device: DeviceName,
    offline: bool,
    progress: TaskProgress,
) -> "list[Recall]":
    from retrieval.devices.selection import choose_device
    from retrieval.evaluation.candidate_recall import coarse_recall as measure
    from retrieval.evaluation.runner import Run
    from retrieval.evaluation.triplets import need_folder
    from retrieval.models.registry import load_embedder

    need_folder(folder, "an index, or a folder of images, is expected there")
    if metric is None:
        raise UsageError(f"{folder} is no index: for a folder of images name the metric with --metric")
    loaded = load_all([metric], MetricSettings(), weights_by_metric(weights, [metric]), device, offline)
    name, _, home = encoder.partition("=")
    embedder = load_embedder(name, Path(home) if home else None, choose_device(device), offline)
    return measure(folder, metric, embedder, counts, Run(metrics=loaded, on_progress=progress.tell), k)
