"""The sub-commands of ``diffsim-eval`` that draw: figure and sweep."""

from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from cli import options
from cli.eval import options as opt
from cli.eval.loading import chosen_metrics, kept_in, load_all, numbers_of, place_of, weights_by_metric
from cli.parsing import parse_names
from cli.process import speaker, stopping, work_offline
from cli.progress import TaskProgress
from retrieval.metrics.base import MetricSettings
from retrieval.settings import EngineSettings

if TYPE_CHECKING:
    from retrieval.evaluation.measures import Measurement

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
    from retrieval.drawing.sheet_file import check_sheet
    from retrieval.evaluation.figure import draw_figure
    from retrieval.evaluation.runner import Run

    check_sheet(out)
    loaded = load_all(names, DEFAULTS, weights_by_metric(weights, names), device, offline)
    with TaskProgress(quiet) as progress:
        draw_figure(folder, query or [], out, Run(metrics=loaded, on_progress=progress.tell), k)
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
    from retrieval.drawing.heatmap import check_heatmap, draw_heatmap, write_heatmap
    from retrieval.evaluation.benchmarks.paper import BenchOptions
    from retrieval.evaluation.report import check_report, write_report
    from retrieval.evaluation.runner import Run
    from retrieval.evaluation.sweep import sweep as run_sweep
    from retrieval.images.decoding import DecodeRules

    check_heatmap(out)
    if csv is not None:
        check_report(csv)
    wanted = parse_names(layers)
    sizes = [None] if image_sizes is None else [*numbers_of(image_sizes)]
    rows: list[tuple[str, list[Measurement]]] = []
    with stopping(lambda: kept_in(cache)), TaskProgress(quiet) as progress:
        for size in sizes:
            settings = MetricSettings(image_size=size, similarity=similarity, seed=seed)
            loaded = load_all([metric], settings, weights_by_metric(weights, [metric]), device, offline)
            chosen = BenchOptions(variant, seed, triplets, originals)
            run = Run(loaded, chosen, DecodeRules(alpha=alpha), cache, on_progress=progress.tell)
            found = run_sweep(bench, place, metric, wanted, levels, run)
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
