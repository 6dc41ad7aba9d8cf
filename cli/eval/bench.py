"""``diffsim-eval bench``: run a benchmark with metrics and report the measurements."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cli import options
from cli.eval import options as opt
from cli.eval.loading import chosen_metrics, load_all
from cli.eval.option_groups import BenchmarkOptions, MetricOptions, decode_rules
from cli.option_groups import Speech, expand_groups
from cli.terminal.printing import show_json, show_lines
from cli.terminal.process import stopping, work_offline
from cli.terminal.progress import ProgressBar
from retrieval.metrics.base import MetricSettings

if TYPE_CHECKING:
    from retrieval.evaluation.measures import JudgedRanking, Measurement

benches = typer.Typer()


@benches.command()
@expand_groups
def bench(
    bench: opt.BenchName,
    metric: opt.Metrics,
    source: opt.Source = None,
    *,
    bench_data: BenchmarkOptions,
    ensemble: opt.Ensemble = False,
    how: MetricOptions,
    trec: opt.TrecRun = None,
    out: opt.Out = None,
    as_json: options.AsJson = False,
    speech: Speech,
    no_progress: options.NoProgress = False,
) -> None:
    """Run a benchmark: `bench groups DIR`, `bench triplets FILE.csv`, `bench sref --data DIR`, `bench all DIR`."""
    work_offline(how.offline)
    names, place, settings = chosen_metrics(metric), bench_data.place(bench, source), how.settings()
    protocol, speaker, files = bench_data.protocol(settings.seed), speech.speaker(), out or []
    from retrieval.evaluation.report import as_markdown, check_report, to_dict, write_report
    from retrieval.evaluation.runner import Run, run_bench
    from retrieval.metrics.ensemble import check_voters

    for file in files:
        check_report(file)  # before the work, not after it
    if ensemble:
        check_voters(len(names))
    loaded = load_all(names, how, speaker, _published_settings(bench, settings))
    found: list[Measurement] = []
    with stopping(bench_data.kept), ProgressBar(speaker, bar=not no_progress) as bar:
        work = Run(
            metrics=loaded,
            options=protocol,
            rules=decode_rules(bench_data.alpha, bench_data.colour),
            cache=bench_data.cache,
            vote=ensemble,
            on_progress=bar.show,
            on_rankings=None if trec is None else _trec_writer(trec),
        )
        for measurement in run_bench(bench, place, work):
            found.append(measurement)
            for file in files:  # after each metric, so that a stopped run keeps its measurements
                write_report(file, found)
    if as_json:
        show_json(to_dict(found))
    else:
        show_lines(as_markdown(found))
    for file in files:
        speaker.say(f"wrote {file}")


def _published_settings(bench: str, settings: MetricSettings) -> dict[str, dict[str, Any]]:
    """Return the layer and step that the paper chose for DiffSim on SD 1.5 and this benchmark, unless one was given."""
    from retrieval.evaluation.benchmarks.table import BENCHES

    known = BENCHES.get(bench)
    if known is None or not known.column or settings.layer or settings.denoising_step:
        return {}
    return {name: {"layer": known.layer, "denoising_step": known.denoising_step} for name in ("diffsim-s", "diffsim-c")}


def _trec_writer(folder: Path) -> Any:
    """Return a function that writes rankings as files of trec_eval."""

    def write(bench: str, metric: str, rankings: "Sequence[JudgedRanking]", root: Path) -> None:
        from retrieval.evaluation.report import trec_qrels, trec_run
        from retrieval.files import write_text

        home = folder / bench
        write_text(home / f"{metric}.run", trec_run(metric, rankings, root))
        write_text(home / "qrels", trec_qrels(rankings, root))

    return write
