"""Fetch weights ahead of their first use, and check them: ``diffsim-index fetch`` and ``doctor --weights``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli import options
from cli.option_groups import Speech, expand_groups
from cli.terminal.printing import show, show_json
from cli.terminal.process import stopping
from cli.terminal.progress import ProgressBar
from retrieval.text import counted, human_bytes

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="An attention model, with its default encoders; an encoder; hf:OWNER/NAME; or a metric of diffsim-eval.",
    ),
]
CheckedWeights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="MODEL[=FOLDER]",
        help="Check the files that `fetch MODEL` would fetch, in a local folder or the hub's cache.",
    ),
]


@expand_groups
def fetch(
    model: Model,
    *,
    as_json: options.AsJson = False,
    speech: Speech,
    no_progress: options.NoProgress = False,
) -> None:
    """Download all weights that MODEL needs into the hub's cache, ahead of their first use.

    Only missing files are downloaded. You can stop it at any moment; the same command goes on.
    """
    from retrieval.metrics.registry import weights_of
    from retrieval.models.weights.finding import fetch as fetch_plans
    from retrieval.models.weights.finding import plan_download

    speaker = speech.speaker()
    plans = [plan_download(description) for description, _ in weights_of(model)]
    new = sum(plan.bytes_left for plan in plans)
    if new:
        speaker.say(f"downloading {human_bytes(new)} of weights")
    with (
        stopping(lambda: "complete files are kept; the same command goes on"),
        ProgressBar(speaker, "downloading", not no_progress) as bar,
    ):
        fetch_plans(plans, bar.show)
    if as_json:
        show_json({"schema": 1, "model": model, "downloaded": new, "repositories": [_to_json(plan) for plan in plans]})
        return
    for plan in plans:
        size = human_bytes(sum(file.size for file in plan.files))
        show(f"{plan.description.name:12s} {size:>9s}  {counted(len(plan.files), 'file')} in {plan.found().root}")
    if not plans:
        show(f"{model} needs no download")


def _to_json(plan: Any) -> dict[str, Any]:
    files = [{"name": file.name, "bytes": file.size, "was_cached": file.cached is not None} for file in plan.files]
    description = plan.description
    return {
        "name": description.name,
        "repo": description.repo,
        "revision": description.revision,
        "folder": str(plan.found().root),
        "files": files,
    }


def check(asked: str, as_json: bool) -> None:
    """Print every file of ``MODEL`` or ``MODEL=FOLDER``; exit with 1 if any is missing or damaged."""
    from retrieval.metrics.registry import weights_of
    from retrieval.models.references import folder_in
    from retrieval.models.weights.check import check_weights

    model, _, folder = asked.partition("=")
    files = check_weights(weights_of(model), Path(folder) if folder else folder_in(model))
    wrong = [file for file in files if file.state != "ok"]
    if as_json:
        show_json({"schema": 1, "model": model, "whole": not wrong, "files": [file.to_dict() for file in files]})
    else:
        for file in files:
            size = human_bytes(file.size) if file.state != "missing" else "-"
            detail = f": {file.detail}" if file.detail else ""
            show(f"{file.state:8s} {file.model:12s} {size:>9s}  {file.name}{detail}")
        show(_verdict(model, folder, len(files), len(wrong)))
    if wrong:
        raise typer.Exit(1)


def _verdict(model: str, folder: str, count: int, wrong: int) -> str:
    if not count:
        return f"{model} needs no weights"
    if not wrong:
        return f"{model} is whole: {counted(count, 'file')}"
    remedy = "put them there" if folder else f"fetch them with: diffsim-index fetch {model}"
    return f"{wrong} of {count} files are missing or damaged; {remedy}"
