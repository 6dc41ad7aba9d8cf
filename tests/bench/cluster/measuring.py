"""Measure builds by one and two workers, and the parts that a simulation predicts them from."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import torch
from PIL import Image

from retrieval import build_index
from retrieval.indexing.capacity.measuring import measure_rates
from retrieval.indexing.reports import BuildEvent
from retrieval.sample_images.pictures import MOTIFS, STYLES, draw
from retrieval.settings import BuildSettings, WorkerSettings
from tests.bench.cluster.building import BuildTimes

SIDE = 384  # px
SAMPLE = 96  # images from which the times are taken
ONE = BuildSettings(device="cpu", workers=1)


@dataclass(frozen=True)
class Phases:
    """Seconds of the phases of one build, and the processor's seconds in the encoding."""

    before: float  # until the models are loaded
    first: float  # from there to the first batch
    encoding: float  # from the first batch to the last commit
    after: float
    images: int  # encoded after the first batch
    work: float
    segments: int

    @property
    def seconds(self) -> float:
        """The whole build."""
        return self.before + self.first + self.encoding + self.after


def draw_images(folder: Path, count: int) -> Path:
    """Draw ``count`` different JPEGs; files of an earlier run stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:04d}.jpg"
        if not path.exists():
            variant, rest = divmod(number, len(STYLES) * len(MOTIFS))
            pixels = draw(STYLES[rest % len(STYLES)], MOTIFS[rest // len(STYLES)], SIDE, variant=variant)
            Image.fromarray(pixels).save(path, quality=90)
    return folder


def build(photos: Path, index: Path, model: str, run: BuildSettings, images: int | None = None) -> Phases:
    """Build an index of the first ``images``, on one thread in each process, and time its phases."""
    marks: dict[str, float] = {}
    commits, first, work = 0, 0, 0.0

    def listen(event: BuildEvent) -> None:
        nonlocal commits, first, work
        now = time.perf_counter()
        if event.stage == "loaded":
            marks["loaded"] = now
        elif event.stage == "encode" and "first" not in marks:
            marks["first"], first, work = now, event.done, time.process_time()
        elif event.stage == "commit":
            marks["last"], commits, marks["work"] = now, commits + 1, time.process_time() - work

    torch.set_num_threads(1)
    start = time.perf_counter()
    with _one_thread_each(run):
        report = build_index(
            photos, index, model=model, run=run, on_progress=listen, only=lambda listing: _first(listing, images)
        )
    end = time.perf_counter()
    return Phases(
        marks["loaded"] - start,
        marks["first"] - marks["loaded"],
        marks["last"] - marks["first"],
        end - marks["last"],
        report.added - first,
        marks["work"],
        commits,
    )


def _first(listing: object, images: int | None) -> object:
    names = listing.names[:images]  # type: ignore[attr-defined]
    return replace(listing, names=names)  # type: ignore[type-var]


@contextmanager
def _one_thread_each(run: BuildSettings) -> Iterator[None]:
    """Let every worker have one thread: a build divides the machine's cores among its workers."""
    if run.pool is None:
        yield
        return
    with mock.patch("retrieval.indexing.workers.opening.os.cpu_count", return_value=run.pool.count):
        yield


def with_workers(count: int) -> BuildSettings:
    """Return the settings of a build by ``count`` processes."""
    return replace(ONE, pool=WorkerSettings("processes", count))


def measure_times(photos: Path, folder: Path, model: str, cores: float) -> BuildTimes:
    """Take the times of a simulation from builds of SAMPLE images: without workers, and by one of them.

    ``folder`` must not exist; it holds the indexes.
    """
    here = build(photos, folder / "here.diffsim", model, ONE, SAMPLE)
    rates = measure_rates([photos], run=ONE, model=model)
    batch = SAMPLE - here.images
    few = build(photos, folder / "few.diffsim", model, with_workers(1), 4 * batch)
    image = here.encoding / here.images
    return BuildTimes(
        before=here.before,
        startup=max(0.0, few.first - 4 * batch * image),  # its one job is told when it is done
        image=image,
        work=here.work / here.images,
        commit=max(rates.commit_seconds, few.encoding),
        commit_segment=rates.commit_segment_seconds,
        after=here.after,
        batch=batch,
        cores=cores,
    )
