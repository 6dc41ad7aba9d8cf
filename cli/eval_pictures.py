"""The sub-commands of ``diffsim-eval`` that look at rankings: figure, sweep and coarse-recall."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli import eval_options as opt
from cli import options
from cli.eval_running import chosen_metrics, load_all, numbers_of, place_of, weights_by_metric
from cli.output import print_json
from cli.progress import TaskProgress
from cli.running import speaker, work_offline
from index_store.layout import is_index
from retrieval.errors import UsageError
from retrieval.metrics import MetricSettings
from retrieval.settings import EngineSettings, parse_names
from retrieval.vocabulary import DeviceName

if TYPE_CHECKING:
    from retrieval.evaluation.measure import Measurement

pictures = typer.Typer()
DEFAULTS = MetricSettings()
DEVICE = EngineSettings().device


@pictures.command()
def figure(
    folder: opt.Folder,
    metric: opt.Metrics,
    out: opt.Picture,
    query: opt.Queries = None,
    k: opt.Neighbours = 4,
    weights: opt.Weights = None,
    device: options.Device = DEVICE,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw the nearest images of some queries in DIR, a row a metric: the paper's retrieval figures."""
    work_offline(offline)
    names = chosen_metrics(metric)
    loaded = load_all(names, DEFAULTS, weights_by_metric(weights, names), device, offline)
    from retrieval.evaluation.figure import draw_figure
    from retrieval.evaluation.run import Run

    with TaskProgress(quiet=quiet, bar=True) as progress:
        draw_figure(folder, query or [], out, Run(metrics=loaded, progress=progress.show), k)
    speaker(quiet)(f"drawn: {out}")


@pictures.command()
def sweep(
    bench: opt.BenchName,
    metric: opt.OneMetric,
    layers: opt.Layers,
    steps: opt.Steps,
    out: opt.Picture,
    source: opt.Source = None,
    data: opt.Data = None,
    variant: opt.Variant = "code",
    triplets: opt.Triplets = 2000,
    originals: opt.Originals = None,
    weights: opt.Weights = None,
    image_sizes: opt.ImageSizes = None,
    similarity: options.Similarity = DEFAULTS.similarity,
    seed: opt.Seed = DEFAULTS.seed,
    alpha: opt.Alpha = "white",
    csv: opt.CsvOut = None,
    cache: opt.Cache = None,
    device: options.Device = DEVICE,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw a heat map of triplet accuracy over layers, denoising steps and resolutions of a diffusion metric."""
    work_offline(offline)
    place, levels = place_of(bench, source, data), numbers_of(steps)
    from retrieval.errors import UsageError
    from retrieval.evaluation.benches import BenchOptions
    from retrieval.evaluation.heatmap import draw_heatmap, write_heatmap
    from retrieval.evaluation.report import write_report
    from retrieval.evaluation.sweep import sweep as run_sweep
    from retrieval.images import DecodeRules
    from retrieval.metrics.extractor import ExtractorMetric

    wanted = parse_names(layers)
    sizes = [None] if image_sizes is None else [*numbers_of(image_sizes)]
    rows: list[tuple[str, list[Measurement]]] = []
    with TaskProgress(quiet=quiet, bar=True) as progress:
        for size in sizes:
            settings = MetricSettings(image_size=size, similarity=similarity, seed=seed)
            loaded = load_all([metric], settings, weights_by_metric(weights, [metric]), device, offline)[metric]
            if not isinstance(loaded, ExtractorMetric):
                raise UsageError(
                    f"{metric} has no layers and steps to sweep; diffsim-s, diffsim-c, diffsim-xl, dit and mini have"
                )
            chosen = BenchOptions(variant, seed, triplets, originals)
            rules = DecodeRules(alpha=alpha)
            found = run_sweep(bench, place, loaded, wanted, levels, chosen, rules, progress.show, cache)
            ending = "" if size is None else f" {size} px"
            rows += [(layer + ending, [found[layer, step] for step in levels]) for layer in wanted]
    values = [[measurement.value for measurement in row] for _, row in rows]
    title = f"{metric}, {bench}: triplet accuracy, %"
    write_heatmap(out, draw_heatmap(values, [name for name, _ in rows], [str(step) for step in levels], title))
    named = [
        replace(m, metric=f"{metric} {name} at {step}")
        for name, row in rows
        for m, step in zip(row, levels, strict=True)
    ]
    if csv is not None:
        write_report(csv, named)
    for measurement in named:
        print(f"{measurement.metric}\t{100 * measurement.value:.2f}")
    speaker(quiet)(f"drawn: {out}")


@pictures.command("coarse-recall")
def coarse_recall(
    place: opt.FolderOrIndex,
    metric: opt.CoarseMetric = None,
    encoder: opt.Encoder = "descriptor",
    candidates: opt.CandidateCounts = "10,20,50,100,200",
    k: opt.Neighbours = 10,
    queries: opt.QueryCount = 200,
    seed: opt.Seed = 0,
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

    with TaskProgress(quiet=quiet, bar=True) as progress:
        if is_index(place):
            from retrieval.engine import Engine
            from retrieval.evaluation.coarse_recall import index_recall

            found = index_recall(
                Engine.open(place, EngineSettings(device=device, offline=offline)),
                counts,
                k,
                queries,
                seed,
                progress.show,
            )
        else:
            found = _recall_of_folder(place, metric, encoder, counts, k, weights, device, offline, progress)
    if as_json:
        print_json(to_dict(found))
        return
    for row in found:
        print(f"{row.metric}: {row.measure}: {100 * row.value:.1f} %  ({row.count} queries)")


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
    from retrieval.evaluation.coarse_recall import coarse_recall as measure
    from retrieval.evaluation.run import Run

    loaded = load_all([metric], DEFAULTS, weights_by_metric(weights, [metric]), device, offline)
    name, _, home = encoder.partition("=")
    embedder = load_embedder(name, Path(home) if home else None, choose_device(device), offline)
    return measure(folder, metric, embedder, counts, Run(metrics=loaded, progress=progress.show), k)
