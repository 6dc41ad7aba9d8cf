"""``diffsim-eval``: compare metrics on the paper's benchmarks and on your own data."""

from typing import Any, NoReturn

import typer

from cli import options
from cli.eval import options as opt
from cli.eval.bench import benches
from cli.eval.candidate_recall import recalls
from cli.eval.compare import comparisons
from cli.eval.loading import chosen_metrics, load_all, weights_by_metric
from cli.eval.option_groups import MetricOptions, decode_rules
from cli.eval.pictures import pictures
from cli.eval.tune import tuning
from cli.option_groups import Speech, expand_groups
from cli.terminal.printing import show, show_json, show_lines
from cli.terminal.process import HELP, run, work_offline
from cli.terminal.progress import ProgressBar
from retrieval.metrics.registry import METRICS

app = typer.Typer(
    help="Compare metrics on the paper's benchmarks and on your own data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings=HELP,
)
app.add_typer(benches)
app.add_typer(comparisons)
app.add_typer(pictures)
app.add_typer(recalls)
app.add_typer(tuning)


@app.callback()
def _eval(version: options.Version = False) -> None:
    pass


@app.command("list")
def list_everything(as_json: options.AsJson = False) -> None:
    """List the metrics, with the licence and download size of their weights, and the benchmarks."""
    from dataclasses import asdict

    from retrieval.evaluation.benchmarks.table import BENCHES

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
        show_json({"metrics": [asdict(metric) for metric in METRICS.values()], "benches": benches})
    else:
        _print_tables()


def _print_tables() -> None:
    from retrieval.evaluation.benchmarks.table import BENCHES, TIKTOK

    show(f"{'metric':18}{'download':>9}  {'licence of the weights':38}description")
    for metric in METRICS.values():
        size = f"{metric.download_mb} MB" if metric.download_mb else "-"
        needs = f" (needs {metric.needs})" if metric.needs else ""
        show(f"{metric.name:18}{size:>9}  {metric.licence:38}{metric.title}{needs}")
    show("")
    show(f"{'benchmark':16}{'triplets':>9}  {'description':45}folder layout")
    for bench in BENCHES.values():
        show(f"{bench.name:16}{bench.published or '-':>9}  {bench.title:45}{bench.layout}")
    show(f"{TIKTOK:16}{'-':>9}  {'TikTok: variance over 10 frames a video':45}VIDEO/FRAME.png")
    show(f"{'pairs':16}{'-':>9}  {'pairs that people called the same or not':45}first,second,same")
    show(f"{'all':16}{'-':>9}  {'every set in a folder, one table':45}SET/...")


@app.command()
@expand_groups
def score(
    first: opt.First,
    second: opt.Second,
    metric: opt.Metrics,
    *,
    how: MetricOptions,
    alpha: options.Alpha = None,
    colour: options.Colour = None,
    as_json: options.AsJson = False,
    speech: Speech,
) -> None:
    """Score one pair of images with each metric."""
    work_offline(how.offline)
    names, speaker = chosen_metrics(metric), speech.speaker()
    how.settings(), weights_by_metric(how.weights, names)  # wrong values are refused before any image is read
    from retrieval.search.queries.picture import read_named

    rules = decode_rules(alpha, colour)
    (a, _), (b, _) = (read_named(path, rules) for path in (first, second))
    found: dict[str, dict[str, Any]] = {}
    with ProgressBar(speaker, state="scoring"):
        loaded = load_all(names, how, speaker)
        for each in loaded.values():
            each.need_scores()
        for name, m in loaded.items():
            query, gallery = m.encode_files([a], [first], "query"), m.encode_files([b], [second], "gallery")
            score = m.shown(float(m.score(query, gallery)[0]))
            found[name] = {"score": score, "higher_is_closer": m.higher_is_closer}
    if as_json:
        show_json({"schema": 1, "a": str(first), "b": str(second), "metrics": found})
        return
    for name, values in found.items():
        show(f"{name:18}{values['score']:.6f}" + ("" if values["higher_is_closer"] else "  (lower is closer)"))


@app.command()
@expand_groups
def table(reports: opt.Reports = None, *, speech: Speech) -> None:
    """Print the paper's table, with the numbers of REPORT.json next to its own."""
    speaker = speech.speaker()
    from retrieval.evaluation.report import beside_published, not_in_table, read_report

    rows = [row for file in reports or [] for row in read_report(file)]
    show_lines(beside_published(rows))
    left_out = not_in_table(rows)
    if left_out:
        speaker.note(f"the paper's table has no column for {', '.join(left_out)}")


def main() -> NoReturn:
    """Run ``diffsim-eval``."""
    run(app)
