"""The settings of builds and of their workers."""

from dataclasses import dataclass
from typing import get_args

from retrieval.errors import UsageError
from retrieval.settings.checks import at_least
from retrieval.types import AttentionRule, DeviceName, WorkerKind

MOST_WORKERS = 256
MAX_PIXELS = 2**28  # of one decoded image: a phone's 200 megapixels, and 1 GiB as Pillow holds them
NEWEST = "newest"  # the default order of a fill


@dataclass(frozen=True)
class WorkerSettings:
    """The workers of a build: processes of this machine, or actors of a Ray cluster."""

    kind: WorkerKind = "processes"
    count: int | None = None  # workers; None: a process for each core, or as many actors as the cluster has room for
    address: str | None = None  # of the Ray cluster; None: one is started on this machine
    cpus: float = 1.0  # of one actor
    gpus: float = 0.0  # of one actor; may be a fraction

    def __post_init__(self) -> None:
        at_least(1, count=self.count)
        at_least(0, cpus=self.cpus, gpus=self.gpus)
        if self.kind not in get_args(WorkerKind):
            raise UsageError(f"unknown kind of workers '{self.kind}'; known: {', '.join(get_args(WorkerKind))}")


@dataclass(frozen=True)
class BuildSettings:
    """How a build is run. Nothing here changes a score by more than 1e-5 in float32."""

    device: DeviceName = "auto"
    batch_size: int | None = None  # images; None: the model's own for the device, less where memory is short
    workers: int | None = None  # decoding threads; None: one per core, 8 at most
    max_pixels: int = MAX_PIXELS  # a larger image is rejected; a JPEG that is decoded at a reduced scale counts as that
    segment_rows: int = 1024  # commit a segment at this many images ...
    commit_seconds: float = 60.0  # ... or when its oldest image has waited this long: a kill loses no more than that
    retry_rejects: bool = False
    rehash: bool = False  # compare the bytes of all files, not only of those whose size or times changed
    gone: bool = False  # remove the items of vanished files even where most of a source vanished at once
    offline: bool = False
    attention: AttentionRule | None = None  # None: the index's own rule; a new index is eager
    pool: WorkerSettings | None = None  # None: this process encodes the images

    def __post_init__(self) -> None:
        at_least(1, batch_size=self.batch_size, workers=self.workers, segment_rows=self.segment_rows)
        at_least(1, max_pixels=self.max_pixels)
        at_least(0, commit_seconds=self.commit_seconds)
        if (self.workers or 0) > MOST_WORKERS:
            raise UsageError(f"workers must be at most {MOST_WORKERS}, not {self.workers}: each is a decoding thread")
        if (self.batch_size or 0) > self.segment_rows:
            raise UsageError(
                f"batch size {self.batch_size} is more than the {self.segment_rows} images of one commit",
                advice="smaller-batch-or-larger-commit",
            )
