"""A small build, killed at each of its flushes and replacements in turn."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from retrieval.indexing.build import build_index
from tests.slices import EVERY
from tests.support.faults import Operations
from tests.support.kill.child import Child, Say
from tests.support.kill.looks import keep_contents, look
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import tiny_model

STEP = 1 if EVERY else 5  # no multiple of two, since flushes and replacements take turns


def kill_at_operations(folder: Path) -> dict[str, Any]:
    """Kill a small build at each of its flushes and replacements in turn, or every fifth one, and resume it."""
    photos, whole = folder / "few", folder / "few.diffsim"
    paint(photos, range(4))
    (photos / "001.png").write_bytes(b"no image")

    def undisturbed(say: Say) -> None:
        with counting(folder, 0) as operations:
            build_small(photos, whole, say)
        keep_contents(whole)
        say(operations=operations.count)

    *_, counted = Child(undisturbed).wait()[0]
    kept: list[dict[str, Any]] = []
    commits = before = 0
    for number in (*range(1, counted["operations"] + 1, STEP), counted["operations"] + 1):
        previous, index = folder / f"few{before}.diffsim", folder / f"few{number}.diffsim"

        def work(say: Say, previous: Path = previous, index: Path = index, number: int = number) -> None:
            if number > 1:
                say(kept=look(previous, whole))
                with counting(folder, 0):  # nothing has to be flushed
                    build_small(photos, previous)
                say(resumed=look(previous, whole))
            with counting(folder, number):
                build_small(photos, index, say)

        lines, killed = Child(work).wait()
        answers = {name: value for line in lines for name, value in line.items()}
        if number > 1:
            kept.append({"kept": answers["kept"], "resumed": answers["resumed"], "commits": commits, "at": before})
        if killed != (number <= counted["operations"]):
            raise RuntimeError(f"operation {number} of {counted['operations']}: killed is {killed}")
        commits, before = answers.get("commits", 0), number
    return {"operations": counted["operations"], "kept": kept}


@contextmanager
def counting(folder: Path, number: int) -> Iterator[Operations]:
    """Kill this process at the n-th flush or replacement."""
    with Operations(folder, number, lambda: os.kill(os.getpid(), signal.SIGKILL), only_durable=True).watched() as found:
        yield found


def build_small(photos: Path, index: Path, say: Say = lambda **words: None) -> None:
    """Build two segments with the tiny model; say how many are committed."""
    commits = 0

    def on_progress(event: Any) -> None:
        nonlocal commits
        commits += event.stage == "commit"
        say(commits=commits)

    with tiny_model():
        build_index(
            photos, index, model="cells", modes=["style"], run=replace(RUN, segment_rows=2), on_progress=on_progress
        )
