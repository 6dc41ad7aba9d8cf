"""``diffsim-eval compare``: quality against cost for every model that runs here; ``compare-table`` prints it again."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli import options
from cli.eval.compare_options import (
    ComparedCost,
    ComparedModels,
    ComparedSets,
    KeptReports,
    Kind,
    Labelled,
    Out,
)
from cli.option_groups import Speech, expand_groups
from cli.terminal.printing import show_json, show_lines
from cli.terminal.process import Speaker, stopping, work_offline
from cli.terminal.progress import ProgressBar

if TYPE_CHECKING:
    from retrieval.evaluation.comparison.results import SetResult

comparisons = typer.Typer()


@comparisons.command()
@expand_groups
def compare(
    bench: Kind,
    source: Labelled,
    *,
    chosen: ComparedModels,
    data: ComparedSets,
    against: ComparedCost,
    out: Out = None,
    as_json: options.AsJson = False,
    speech: Speech,
    no_progress: options.NoProgress = False,
) -> None:
    """Compare models on labelled images: mAP or accuracy with intervals, speed, bytes and memory, by mode.

    `compare groups DIR` takes each folder of DIR as a group, `compare all DIR` each folder as a set.
    """
    work_offline(chosen.offline)
    speaker, files = speech.speaker(), out or []
    from retrieval.evaluation.comparison.measuring import compare as measure
    from retrieval.evaluation.comparison.report import check_file, write_file
    from retrieval.evaluation.comparison.results import merged

    against.check()
    for file in files:
        check_file(file)  # before the work, not after it
    with stopping(lambda: _what_is_kept(files)), ProgressBar(speaker, bar=not no_progress) as bar:
        how, found = chosen.comparison(on_progress=bar.show), _kept(files)
        sets = data.load(bench, source)
        speaker.say(f"comparing {', '.join(how.models)} on {', '.join(each.name for each in sets)}")
        for result in measure(sets, how, found):
            found = merged(found, [result])
            for file in files:  # after each set, so that a stopped run keeps its measurements
                write_file(file, found, against.cost)
    _show(found, against, as_json, files, speaker)


@comparisons.command("compare-table")
@expand_groups
def compare_table(
    reports: KeptReports, *, against: ComparedCost, out: Out = None, as_json: options.AsJson = False, speech: Speech
) -> None:
    """Print the tables of REPORT.json again, those of several reports as one; draw them with --figure."""
    speaker, files = speech.speaker(), out or []
    from retrieval.evaluation.comparison.report import check_file, write_file
    from retrieval.evaluation.comparison.results import merged, read_results

    against.check()
    for file in files:
        check_file(file)
    found: list[SetResult] = []
    for report in reports:
        found = merged(found, read_results(report))
    for file in files:
        write_file(file, found, against.cost)
    _show(found, against, as_json, files, speaker)


def _kept(files: Sequence[Path]) -> "list[SetResult]":
    """Return the results of an earlier run in the first JSON file that exists."""
    from retrieval.evaluation.comparison.results import read_results

    kept = [file for file in files if file.suffix.lower() == ".json" and file.is_file()]
    return read_results(kept[0]) if kept else []


def _what_is_kept(files: Sequence[Path]) -> str:
    kept = [str(file) for file in files if file.suffix.lower() == ".json" and file.is_file()]
    return f"the sets that are done are in {kept[0]}; the same command goes on" if kept else ""


def _show(
    found: "list[SetResult]", against: ComparedCost, as_json: bool, files: Sequence[Path], speaker: Speaker
) -> None:
    from retrieval.evaluation.comparison.report import as_markdown, to_dict

    if as_json:
        show_json(to_dict(found, against.cost))
    else:
        show_lines(as_markdown(found, against.cost))
    against.draw(found)
    for path in (*files, *((against.figure,) if against.figure else ())):
        speaker.say(f"wrote {path}")
