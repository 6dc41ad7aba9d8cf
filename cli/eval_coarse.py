"""``diffsim-eval coarse-recall``: how much of the exact ranking the coarse stage lets through."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cli import eval_options as opt
from cli import options
from cli.eval_running import load_all, numbers_of, weights_by_metric
from cli.output import print_json
from cli.progress import QUERIES, TaskProgress
from cli.running import say, work_offline
from index_store.layout import is_index
from retrieval.errors import UsageError
from retrieval.metrics import MetricSettings
from retrieval.settings import EngineSettings
from retrieval.vocabulary import DeviceName

if TYPE_CHECKING:
    from retrieval.evaluation.measure import Measurement

coarse = typer.Typer()
DEVICE = EngineSettings().device
ENCODER = "descriptor"  # of a folder, unless another is named
_SIZES = re.compile(r"top-(\d+) .*?at (\d+) candidates")


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
    from retrieval.evaluation.report import to_dict

    of_index = is_index(place)
    with TaskProgress(quiet, counted=QUERIES) as progress:
        if of_index:
            if metric is not None or encoder is not None or weights:
                raise UsageError(
                    f"{place} is an index with a model of its own: leave --metric, --encoder, --weights out"
                )
            found = _recall_of_index(place, counts, k, queries, seed, EngineSettings(device, offline=offline), progress)
        else:
            chosen = encoder or ENCODER
            found = _recall_of_folder(place, metric, chosen, counts, k, weights, device, offline, progress)
    if as_json:
        whole = to_dict(found)
        more = {"index": str(place)} if of_index else {"folder": str(place)}
        whole["measurements"] = [{**row, **more, **_fields(row, of_index)} for row in whole["measurements"]]
        print_json(whole)
        return
    for row in found:
        print(f"{row.metric}: {row.measure}: {100 * row.value:.1f} %  ({row.count} queries)")
    if min(counts) < k and not quiet:
        say(f"note: of {k} nearest images {min(counts)} candidates can hold {100 * min(counts) / k:.0f} % at most")


def _fields(row: dict[str, Any], of_index: bool) -> dict[str, Any]:
    """Return what a row's words say, as fields: mode (of an index), k and candidates."""
    sizes = _SIZES.search(row["measure"])
    mode = {"mode": row["metric"]} if of_index else {}
    return {**mode, **({"k": int(sizes[1]), "candidates": int(sizes[2])} if sizes else {})}


def _check_k(k: int, images: int, place: Path) -> None:
    if not 1 <= k < images:
        raise UsageError(f"-k {k}: {place} has {images} images, so each has 1 to {images - 1} neighbours")


def _recall_of_index(
    place: Path,
    counts: Sequence[int],
    k: int,
    queries: int,
    seed: int,
    settings: EngineSettings,
    progress: TaskProgress,
) -> "list[Measurement]":
    from retrieval.engine import Engine
    from retrieval.evaluation.coarse_recall import index_recall

    engine = Engine.open(place, settings)
    if len(engine) > 2:  # with fewer there is nothing to measure at all
        _check_k(k, len(engine), place)
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
) -> "list[Measurement]":
    if metric is None:
        raise UsageError(f"{folder} is no index: for a folder of images name the metric with --metric")
    from retrieval.backbones import load_embedder
    from retrieval.device import choose_device
    from retrieval.discovery import find_images
    from retrieval.evaluation.coarse_recall import coarse_recall as measure
    from retrieval.evaluation.run import Run

    images = len(find_images([folder]).names)
    if images > 2:
        _check_k(k, images, folder)
    loaded = load_all([metric], MetricSettings(), weights_by_metric(weights, [metric]), device, offline)
    name, _, home = encoder.partition("=")
    embedder = load_embedder(name, Path(home) if home else None, choose_device(device), offline)
    return measure(folder, metric, embedder, counts, Run(metrics=loaded, progress=progress.show), k)
