"""``diffsim-eval figure`` and ``sweep``, which draw their results."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli import options
from cli.eval import options as opt
from cli.eval.loading import chosen_metrics, load_all
from cli.eval.option_groups import BenchmarkOptions, MetricOptions, decode_rules
from cli.option_groups import Place, Speech, expand_groups
from cli.parsing import parse_names, parse_numbers
from cli.terminal.printing import show
from cli.terminal.process import stopping, work_offline
from cli.terminal.progress import ProgressBar
from retrieval.metrics.base import MetricSettings

if TYPE_CHECKING:
    from retrieval.evaluation.measures import Measurement

pictures = typer.Typer()
SIMILARITY = MetricSettings().similarity


@pictures.command()
@expand_groups
def figure(
    folder: opt.Folder,
    metric: opt.Metrics,
    out: opt.Picture,
    *,
    query: opt.Queries = None,
    k: opt.Neighbours = 4,
    weights: opt.Weights = None,
    where: Place,
    speech: Speech,
) -> None:
    """Draw the nearest images of some queries in DIR, one row per metric, as the paper's retrieval figures do."""
    work_offline(where.offline)
    names, speaker = chosen_metrics(metric), speech.speaker()
    from retrieval.drawing.sheet_file import check_sheet
    from retrieval.evaluation.figure import draw_figure
    from retrieval.evaluation.runner import Run

    check_sheet(out)
    loaded = load_all(names, MetricOptions(**vars(where), weights=weights), speaker)
    with ProgressBar(speaker) as bar:
        draw_figure(folder, query or [], out, Run(metrics=loaded, on_progress=bar.show), k)
    speaker.say(f"drew {out}")


@pictures.command()
@expand_groups
def sweep(
    bench: opt.BenchName,
    metric: opt.OneMetric,
    layers: opt.Layers,
    steps: opt.Steps,
    out: opt.Picture,
    source: opt.Source = None,
    *,
    bench_data: BenchmarkOptions,
    weights: opt.Weights = None,
    image_sizes: opt.ImageSizes = None,
    similarity: options.Similarity = SIMILARITY,
    seed: options.Seed = None,
    csv: opt.CsvOut = None,
    where: Place,
    speech: Speech,
) -> None:
    """Draw a heat map of triplet accuracy over the layers, denoising steps and resolutions of a diffusion metric."""
    work_offline(where.offline)
    place, levels, names = bench_data.place(bench, source), parse_numbers(steps), parse_names(layers)
    sizes = [None] if image_sizes is None else [*parse_numbers(image_sizes)]
    speaker, how = speech.speaker(), MetricOptions(**vars(where), weights=weights, similarity=similarity, seed=seed)
    from retrieval.drawing.heatmap import check_heatmap
    from retrieval.evaluation.report import check_report
    from retrieval.evaluation.runner import Run
    from retrieval.evaluation.sweep import sweep as run_sweep

    check_heatmap(out)
    if csv is not None:
        check_report(csv)
    protocol, cache = bench_data.protocol(how.settings().seed), bench_data.cache
    rules = decode_rules(bench_data.alpha, bench_data.colour)
    rows: list[tuple[str, list[Measurement]]] = []
    with stopping(bench_data.kept), ProgressBar(speaker) as bar:
        for size in sizes:
            loaded = load_all([metric], replace(how, image_size=size), speaker)
            run = Run(loaded, protocol, rules, cache, on_progress=bar.show)
            found = run_sweep(bench, place, metric, names, levels, run)
            ending = "" if size is None else f" {size} px"
            rows += [(layer + ending, [found[layer, step] for step in levels]) for layer in names]
    _draw_sweep(out, f"{metric}, {bench}: triplet accuracy, %", rows, levels)
    _print_sweep(metric, rows, levels, csv)
    speaker.say(f"drew {out}")


def _draw_sweep(out: Path, title: str, rows: "list[tuple[str, list[Measurement]]]", levels: list[int]) -> None:
    from retrieval.drawing.heatmap import draw_heatmap, write_heatmap

    values = [[measurement.value for measurement in row] for _, row in rows]
    write_heatmap(out, draw_heatmap(values, [name for name, _ in rows], [str(step) for step in levels], title))


def _print_sweep(metric: str, rows: "list[tuple[str, list[Measurement]]]", levels: list[int], csv: Path | None) -> None:
    from retrieval.evaluation.report import write_report

    named = [
        replace(m, metric=f"{metric} {name} at {step}")
        for name, row in rows
        for m, step in zip(row, levels, strict=True)
    ]
    if csv is not None:
        write_report(csv, named)
    for measurement in named:
        show(measurement.metric, f"{100 * measurement.value:.2f}")
