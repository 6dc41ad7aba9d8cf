"""What a build says while it runs, and what it did in the end."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


def slowest(speeds: Mapping[str, float]) -> str | None:
    """Return the stage that holds the others up, by images a second; None where there is none."""
    return min(speeds, key=lambda stage: speeds[stage], default=None)


@dataclass(frozen=True)
class Estimate:
    """What a build takes: bytes on disk from the tensors' shapes, memory about; no image has been computed."""

    images: int  # new and changed ones
    codec: str
    bytes_by_mode: dict[str, int]  # of one image's tensors
    bytes_beside: int  # of one image's vectors and catalogue row, about
    to_complete: int  # images that are in the index already and get what they lack
    disk_bytes: int  # of all of these
    local_bytes: int  # of these, what this machine's disk must hold: all, or a segment of an index in an object store
    free_disk_bytes: int
    models_bytes: int | None  # memory of this process with its models, about; None: the system does not say
    batch: int  # images
    batch_bytes: int  # memory that a batch takes beside the models, about; 0: never measured for this model
    free_memory_bytes: int | None
    advice: str = ""  # what would fit, where the disk is too small

    @property
    def bytes_an_image(self) -> int:
        """All of one new image."""
        return sum(self.bytes_by_mode.values()) + self.bytes_beside


@dataclass(frozen=True)
class BuildPlan:
    """What a build would do; nothing was written."""

    index: str
    model: str
    why: str  # this model
    modes: tuple[str, ...]
    new: int
    changed: int
    moved: int  # renamed or touched files
    vanished: int
    unchanged: int
    rejected_before: int  # files that were rejected and have not changed since
    passed_over: int  # files whose names are no image's
    estimate: Estimate | None = None  # None: there is nothing to compute
    to_complete: int = 0  # items that lack vectors or tensors which they are to have
    seconds_an_image: float | None = None  # of the images that were computed to measure it
    seconds: float | None = None  # all of them, about
    problem: str = ""  # why the disk or the memory can't hold it, and what would fit

    @property
    def fits(self) -> bool:
        """Whether the disk and the memory can hold it."""
        return not self.problem

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema": 1, **asdict(self), "fits": self.fits}


@dataclass(frozen=True)
class BuildEvent:
    """One step of a build, for whoever shows its progress."""

    kind: Literal["planned", "model", "loaded", "estimate", "batch", "committed", "training"]
    message: str = ""
    done: int = 0  # files dealt with in this run
    total: int = 0  # files to deal with in this run
    rejected: int = 0
    estimate: Estimate | None = None  # of the kind "estimate"
    speeds: dict[str, float] = field(default_factory=dict)  # of the kind "batch": images a second by stage


@dataclass(frozen=True)
class BuildReport:
    """What a build did."""

    index: str
    model: str
    modes: tuple[str, ...]
    items: int  # in the index now
    added: int
    replaced: int  # of the added: files that had changed
    moved: int  # renamed or touched files: nothing was computed anew
    removed: int  # items whose files are gone
    unchanged: int
    rejected: dict[str, int] = field(default_factory=dict)  # by reason, in the index now
    passed_over: int = 0  # files whose names are no image's
    unreadable_folders: tuple[str, ...] = ()
    seconds: float = 0.0
    completed: int = 0  # items that got vectors or tensors which they lacked
    incomplete: int = 0  # items that could not get them: their files are gone, or have changed
    coverage: dict[str, int] = field(default_factory=dict)  # by mode, items whose tensors are in the index now
    speeds: dict[str, float] = field(default_factory=dict)  # images a second that decode, compute and write could do

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema": 1, **asdict(self), "slowest": slowest(self.speeds)}


@dataclass(frozen=True)
class FillReport:
    """What a fill did."""

    index: str
    model: str
    modes: tuple[str, ...]  # that were to be filled
    items: int  # in the index
    completed: int  # items that got what they lacked, computed or copied from a mode that reads the same
    adopted: int  # tensors that searches had computed and left in the cache
    incomplete: int  # items that lack something still: their files are gone, or have changed
    coverage: dict[str, int]  # by mode, items whose tensors are in the index now
    seconds: float = 0.0
    speeds: dict[str, float] = field(default_factory=dict)  # as of a build

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema": 1, **asdict(self), "slowest": slowest(self.speeds)}
