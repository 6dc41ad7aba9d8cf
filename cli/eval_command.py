"""``diffsim-eval``: compare metrics on the paper's benchmarks and on data of your own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from cli import options
from cli.eval import options as opt
from cli.eval.candidate_recall import coarse
from cli.eval.loading import chosen_metrics, folder_of, kept_in, load_all, place_of, weights_by_metric
from cli.eval.pictures import pictures
from cli.eval.tune import tuning
from cli.output import print_json
from cli.process import run, say, speaker, stopping, work_offline
from cli.progress import Pulse, TaskProgress
from retrieval.metrics.base import MetricSettings
from retrieval.metrics.registry import METRICS
from retrieval.settings import EngineSettings

if TYPE_CHECKING:
    from retrieval.evaluation.measures import JudgedRanking, Measurement

app = typer.Typer(
    help="Compare metrics on the paper's benchmarks and on data of your own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(pictures)
app.add_typer(coarse)
app.add_typer(tuning)
DEFAULTS = MetricSettings()
DEVICE = EngineSettings().device


@app.callback()
def _eval(version: options.Version = False) -> None:
    pass


@app.command("list")
def list_everything(as_json: options.AsJson = False) -> None:
    """List the metrics, with the licence and download size of their weights, and the benchmarks."""
    from dataclasses import asdict

    from retrieval.evaluation.benchmarks.table import BENCHES, TIKTOK

    if as_json:
        benches = [
            {
                "name": b.name,
                "title": b.title,
                "layout": b.layout,
                "triplets": b.published,
                "variants": b.settings_differ,
            }
            for b in BENCHES.values()
        ]
        print_json({"metrics": [asdict(metric) for metric in METRICS.values()], "benches": benches})
        return
    print(f"{'metric':18}{'download':>9}  {'licence of the weights':38}what it is")
    for metric in METRICS.values():
        size = f"{metric.download_mb} MB" if metric.download_mb else "-"
        needs = f" (needs {metric.needs})" if metric.needs else ""
        print(f"{metric.name:18}{size:>9}  {metric.licence:38}{metric.title}{needs}")
    print(f"\n{'benchmark':16}{'triplets':>9}  {'what it is':45}its folder")
    for bench in BENCHES.values():
        print(f"{bench.name:16}{bench.published or '-':>9}  {bench.title:45}{bench.layout}")
    print(f"{TIKTOK:16}{'-':>9}  {'TikTok: variance over 10 frames a video':45}VIDEO/FRAME.png")
    print(f"{'pairs':16}{'-':>9}  {'pairs that people called the same or not':45}first,second,same")
    print(f"{'all':16}{'-':>9}  {'every set in a folder, one table':45}SET/...")


@app.command()
def score(
    first: opt.First,
    second: opt.Second,
    metric: opt.Metrics,
    weights: opt.Weights = None,
    layer: opt.Layer = None,
    step: opt.Step = None,
    image_size: opt.ImageSize = None,
    similarity: options.Similarity = DEFAULTS.similarity,
    parity: opt.Parity = DEFAULTS.parity,
    branches: opt.BranchesOf = DEFAULTS.branches,
    noise: opt.Noise = None,
    seed: opt.Seed = DEFAULTS.seed,
    prompt: opt.Prompt = DEFAULTS.prompt,
    dtype: opt.Dtype = DEFAULTS.dtype,
    masks: opt.Masks = None,
    alpha: opt.Alpha = "white",
    device: options.Device = DEVICE,
    offline: options.Offline = False,
    as_json: options.AsJson = False,
) -> None:
    """Score one pair of images with each metric."""
    work_offline(offline)
    names = chosen_metrics(metric)
    settings = MetricSettings(
        layer, step, None, image_size, similarity, "both", parity, branches, noise, seed, prompt, dtype
    )
    settings = replace(settings, masks=folder_of(masks))
    folders = weights_by_metric(weights, names)
    from retrieval.images.decoding import DecodeRules
    from retrieval.search.query import read_named

    a, b = (read_named(path, DecodeRules(alpha=alpha))[0] for path in (first, second))
    with Pulse("scoring", say):
        loaded = load_all(names, settings, folders, device, offline)
        for each in loaded.values():
            each.need_scores()
        found = {
            name: {
                "score": float(
                    m.score(m.encode_files([a], [first], "query"), m.encode_files([b], [second], "gallery"))[0]
                ),
                "higher_is_closer": m.higher_is_closer,
            }
            for name, m in loaded.items()
        }
    if as_json:
        print_json({"schema": 1, "a": str(first), "b": str(second), "metrics": found})
        return
    for name, values in found.items():
        print(f"{name:18}{values['score']:.6f}" + ("" if values["higher_is_closer"] else "  (lower is closer)"))


@app.command()
def bench(
    bench: opt.BenchName,
    metric: opt.Metrics,
    source: opt.Source = None,
    data: opt.Data = None,
    ensemble: opt.Ensemble = False,
    variant: opt.Variant = "code",
    triplets: opt.Triplets = 2000,
    originals: opt.Originals = None,
    weights: opt.Weights = None,
    layer: opt.Layer = None,
    step: opt.Step = None,
    image_size: opt.ImageSize = None,
    similarity: options.Similarity = DEFAULTS.similarity,
    parity: opt.Parity = DEFAULTS.parity,
    branches: opt.BranchesOf = DEFAULTS.branches,
    noise: opt.Noise = None,
    seed: opt.Seed = DEFAULTS.seed,
    prompt: opt.Prompt = DEFAULTS.prompt,
    dtype: opt.Dtype = DEFAULTS.dtype,
    masks: opt.Masks = None,
    alpha: opt.Alpha = "white",
    device: options.Device = DEVICE,
    offline: options.Offline = False,
    cache: opt.Cache = None,
    trec: opt.TrecRun = None,
    out: opt.Out = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    no_progress: options.NoProgress = False,
) -> None:
    """Run a benchmark: `bench groups DIR`, `bench triplets FILE.csv`, `bench sref --data DIR`, `bench all DIR`."""
    work_offline(offline)
    names = chosen_metrics(metric)
    place = place_of(bench, source, data)
    settings = MetricSettings(
        layer, step, None, image_size, similarity, "both", parity, branches, noise, seed, prompt, dtype
    )
    settings = replace(settings, masks=folder_of(masks))
    from retrieval.evaluation.benchmarks.paper import BenchOptions
    from retrieval.evaluation.report import as_markdown, check_report, to_dict, write_report
    from retrieval.evaluation.runner import Run, run_bench
    from retrieval.images.decoding import DecodeRules
    from retrieval.metrics.ensemble import check_voters

    for file in out or []:
        check_report(file)  # told before the work, not after it
    if ensemble:
        check_voters(len(names))
    chosen = BenchOptions(variant, seed, triplets, originals)
    published = _published_settings(bench, settings)
    loaded = load_all(names, settings, weights_by_metric(weights, names), device, offline, published)
    found: list[Measurement] = []
    with stopping(lambda: kept_in(cache)), TaskProgress(quiet, not no_progress) as progress:
        work = Run(
            metrics=loaded,
            options=chosen,
            rules=DecodeRules(alpha=alpha),
            cache=cache,
            vote=ensemble,
            on_progress=progress.tell,
            on_rankings=None if trec is None else _trec_writer(trec),
        )
        for measurement in run_bench(bench, place, work):
            found.append(measurement)
            for file in out or []:  # what is done survives a stop
                write_report(file, found)
    if as_json:
        print_json(to_dict(found))
    else:
        print(as_markdown(found), end="")
    for file in out or []:
        speaker(quiet)(f"written: {file}")


def _published_settings(bench: str, settings: MetricSettings) -> dict[str, dict[str, Any]]:
    """Return the benchmark's published layer and step for DiffSim on SD 1.5, where none was asked for."""
    from retrieval.evaluation.benchmarks.table import BENCHES

    known = BENCHES.get(bench)
    if known is None or not known.column or settings.layer or settings.denoising_step:
        return {}
    return {name: {"layer": known.layer, "denoising_step": known.denoising_step} for name in ("diffsim-s", "diffsim-c")}


def _trec_writer(folder: Path) -> Any:
    def write(bench: str, metric: str, rankings: "Sequence[JudgedRanking]", root: Path) -> None:
        from retrieval.evaluation.report import trec_qrels, trec_run
        from retrieval.files import write_text

        home = folder / bench
        write_text(home / f"{metric}.run", trec_run(metric, rankings, root))
        write_text(home / "qrels", trec_qrels(rankings, root))

    return write


@app.command()
def table(reports: opt.Reports = None) -> None:
    """Print the paper's table, with the numbers of REPORT.json beside its own."""
    from retrieval.evaluation.report import beside_published, not_in_table, read_report

    rows = [row for file in reports or [] for row in read_report(file)]
    print(beside_published(rows), end="")
    left_out = not_in_table(rows)
    if left_out:
        say(f"left out, since the paper's table has no column for it: {', '.join(left_out)}")


def main() -> NoReturn:
    """Run ``diffsim-eval``."""
    run(app)
