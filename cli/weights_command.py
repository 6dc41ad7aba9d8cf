"""Fetch weights ahead of their first use, and check them: ``diffsim-index fetch`` and ``doctor --weights``."""

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import typer

from cli import options
from cli.output import print_json
from cli.process import clock, say, stopping
from retrieval.progress import Progress
from retrieval.text import counted, human_bytes

LINE_SECONDS = 15.0  # the longest silence without a terminal

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="An attention model, with its default encoders; or one; or hf:OWNER/NAME."),
]
CheckedWeights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="MODEL[=FOLDER]",
        help="Check the files of this model and its default encoders, in a local folder or the hub's cache.",
    ),
]


class DownloadBar:
    """A bar with bytes, speed and the time left on a terminal; elsewhere a line every :data:`LINE_SECONDS`."""

    def __init__(self, quiet: bool, bar: bool) -> None:
        """Show nothing if ``quiet``; draw only if ``bar`` and stderr is a terminal."""
        self._quiet, self._bar = quiet, _new_bar() if bar and not quiet and sys.stderr.isatty() else None
        self._task: Any = None
        self._began = self._said = time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Show how many bytes are there, as the ``on_progress`` of a download."""
        if self._first is None:
            self._first = progress.done
        if self._bar is not None:
            if self._task is None:
                self._bar.start()
                self._task = self._bar.add_task("", total=progress.total)
            self._bar.update(self._task, completed=progress.done, description=progress.note)
            return
        now, new = time.monotonic(), progress.done - self._first
        if self._quiet or now - self._said < LINE_SECONDS:
            return
        self._said = now
        left = f", about {clock((progress.total - progress.done) * (now - self._began) / new)} left" if new else ""
        say(f"{progress.note}: {human_bytes(progress.done)} of {human_bytes(progress.total)}{left}")


def _new_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Bar(*columns, console=Console(stderr=True))


def fetch(
    model: Model,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    no_progress: options.NoProgress = False,
) -> None:
    """Download the weights of MODEL and of its default encoders into the hub's cache, ahead of their first use.

    Only missing files are downloaded. You can stop it at any moment; the same command goes on.
    """
    from retrieval.models.weights.check import needed_by
    from retrieval.models.weights.finding import fetch as fetch_plans
    from retrieval.models.weights.finding import plan_download

    plans = [plan_download(description) for description, _ in needed_by(model)]
    new = sum(plan.bytes_left for plan in plans)
    if new and not quiet:
        say(f"downloading {human_bytes(new)} of weights")
    with (
        stopping(lambda: "complete files are kept; the same command goes on"),
        DownloadBar(quiet, not no_progress) as bar,
    ):
        fetch_plans(plans, bar.show)
    if as_json:
        print_json({"schema": 1, "model": model, "downloaded": new, "repositories": [_to_json(plan) for plan in plans]})
        return
    for plan in plans:
        size = human_bytes(sum(file.size for file in plan.files))
        print(f"{plan.description.name:12s} {size:>9s}  {counted(len(plan.files), 'file')} in {plan.found().root}")
    if not plans:
        print(f"{model} needs no download")


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
    from retrieval.models.weights.check import check_weights

    model, _, folder = asked.partition("=")
    files = check_weights(model, Path(folder) if folder else None)
    wrong = [file for file in files if file.state != "ok"]
    if as_json:
        print_json({"schema": 1, "model": model, "whole": not wrong, "files": [file.to_dict() for file in files]})
    else:
        for file in files:
            size = human_bytes(file.size) if file.state != "missing" else "-"
            detail = f": {file.detail}" if file.detail else ""
            print(f"{file.state:8s} {file.model:12s} {size:>9s}  {file.name}{detail}")
        print(_verdict(model, folder, len(files), len(wrong)))
    if wrong:
        raise typer.Exit(1)


def _verdict(model: str, folder: str, count: int, wrong: int) -> str:
    if not count:
        return f"{model} needs no weights"
    if not wrong:
        return f"{model} is whole: {counted(count, 'file')}"
    remedy = "put them there" if folder else f"fetch them with: diffsim-index fetch {model}"
    return f"{wrong} of {count} files are missing or damaged; {remedy}"
