"""`python -m tests.bench.cluster.one_build PHOTOS INDEX MODEL IMAGES WORKERS`: one build, as the command does it.

It prints when each part of the build ended, as JSON with seconds of the system's clock. WORKERS of 0 builds in this
process. Workers import this module, too, so it imports little.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

from cli.terminal.process import importing
from retrieval.indexing.workers.processes import begin_workers
from retrieval.settings import BuildSettings, WorkerSettings

if TYPE_CHECKING:
    from retrieval.indexing.reports import BuildEvent

MARKS: dict[str, float] = {}


def mark(name: str) -> None:
    """Note the time as that of the last event of this name."""
    MARKS[name] = time.time()


def listen(event: "BuildEvent") -> None:
    """Note the time of an event of the build."""
    mark(event.stage)
    if event.stage == "encode" and "first" not in MARKS:
        mark("first")
        MARKS["first_images"], MARKS["first_work"] = event.done, time.process_time()
    elif event.stage == "commit":
        MARKS["work"] = time.process_time() - MARKS.get("first_work", 0.0)


def _marked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        mark(f"{name}_begin")
        try:
            return function(*arguments, **named)
        finally:
            mark(name)

    return call


@contextmanager
def _watched(count: int) -> Iterator[None]:
    """Note when the first worker is open, when workers answer, and when percentiles are drawn; one thread each."""
    from retrieval.indexing import build
    from retrieval.indexing.workers import opening

    class Watched(opening.ProcessWorker):
        def __init__(self, spec: Any) -> None:
            super().__init__(spec)
            MARKS.setdefault("opened", time.time())

        def do(self, job: Any) -> Any:
            answer = super().do(job)
            if hasattr(job, "files"):
                mark("answered")
            return answer

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(opening, "ProcessWorker", Watched))
        if count:  # a build divides the machine's cores among its workers
            patches.enter_context(mock.patch.object(opening.os, "cpu_count", return_value=count))
        drawn = _marked("pairs", build.calibrate_where_due)
        patches.enter_context(mock.patch.object(build, "calibrate_where_due", drawn))
        yield


def main() -> None:
    """Read the command line, build, print."""
    photos, index, model, images, workers = sys.argv[1:]
    count = int(workers)
    run = BuildSettings(device="cpu", workers=1, pool=WorkerSettings("processes", count) if count else None)
    begin_workers(run.pool)
    with importing():
        import torch

        from retrieval.indexing.build import build_index

    torch.set_num_threads(1)
    mark("imported")
    with _watched(count):
        report = build_index(
            photos,
            index,
            model=model,
            run=run,
            on_progress=listen,
            only=lambda listing: replace(listing, names=listing.names[: int(images)]),
        )
    mark("done")
    print(json.dumps({**MARKS, "added": report.added, "modes": len(report.modes)}))


if __name__ == "__main__":
    main()
