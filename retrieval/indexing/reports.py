"""Progress events and reports of builds, fills and dry runs."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from retrieval.progress import Progress


def slowest(speeds: Mapping[str, float]) -> str | None:
    """Return the stage with the fewest images a second, which limits the others; None without any speed."""
    return min(speeds, key=lambda stage: speeds[stage], default=None)


@dataclass(frozen=True)
class Estimate:
    """Disk and memory that a build or fill needs. Disk bytes follow from the tensors' shapes; memory is approximate."""

    images: int  # new and changed ones
    codec: str
    bytes_by_mode: dict[str, int]  # tensors of one image; modes that share them count as the first of these
    shared: dict[str, str]  # by mode that adds no bytes: the mode whose tensors it reads as well
    bytes_beside: int  # vectors and catalogue row of one image, approximately
    to_complete: int  # indexed images that get tensors or vectors which they miss
    disk_bytes: int  # all images together
    local_bytes: int  # the part that this machine's disk holds at a time; an object store holds the rest
    free_disk_bytes: int
    models_bytes: int | None  # memory of this process with its models, approximately; None: unknown
    batch: int  # images
    batch_bytes: int  # memory of a batch beside the models, approximately; 0: not measured for this model
    free_memory_bytes: int | None
    advice: str = ""  # where the disk is too small: a word for what would fit, as in DiffSimError
    advice_facts: dict[str, Any] = field(default_factory=dict)

    @property
    def bytes_an_image(self) -> int:
        """Disk bytes of one new image."""
        return sum(self.bytes_by_mode.values()) + self.bytes_beside


@dataclass(frozen=True)
class BuildPlan:
    """The report of a dry run: what a build would do and need."""

    index: str
    model: str
    why: str  # the reason for this model
    modes: tuple[str, ...]
    new: int
    changed: int
    moved: int  # renamed or touched files
    vanished: int
    unchanged: int
    copied: int  # files with the content of another one, whose vectors and tensors are copied
    revived: int  # removed items whose picture is back
    withheld: dict[str, int]  # by source: items that would be kept though their files are gone
    rejected_before: int  # rejected files that have not changed since
    passed_over: int  # files without the name of an image
    passed_over_endings: dict[str, int] = field(default_factory=dict)  # by ending, hidden files left out
    estimate: Estimate | None = None  # None: there is nothing to compute
    to_complete: int = 0  # indexed images that miss vectors or tensors
    seconds_an_image: float | None = None  # mean of the images that were computed to measure it
    seconds: float | None = None  # all images together, approximately
    problem: str = ""  # why the disk or the memory is too small; empty: it fits
    advice: str = ""  # a word for what would fit, as in DiffSimError
    advice_facts: dict[str, Any] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether disk and memory are large enough."""
        return not self.problem

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema": 1, **asdict(self), "fits": self.fits}


@dataclass(frozen=True)
class BuildEvent(Progress):
    """Progress of a build or a fill.

    Stages, in order: ``hash`` after every file that is compared by its bytes, ``planned``, ``model`` (note: its name),
    ``estimate``, ``loaded``, then ``encode`` after every batch and ``commit`` after every segment, ``train`` (note: the
    encoder) and ``calibrate`` (note: the mode). ``done`` and ``total`` count files; for the last two the total counts
    indexed images.
    """

    rejected: int = 0  # files that can't be used
    speeds: dict[str, float] = field(default_factory=dict)  # images a second by stage; of "encode"
    estimate: Estimate | None = None  # of "estimate"


OnBuildProgress = Callable[[BuildEvent], None]
"""An :data:`retrieval.progress.OnProgress` that may use the fields of :class:`BuildEvent`."""


@dataclass(frozen=True)
class BuildReport:
    """The result of a build."""

    index: str
    model: str
    modes: tuple[str, ...]
    items: int  # in the index now
    added: int
    replaced: int  # changed files, counted in "added" as well
    moved: int  # renamed or touched files: they keep their vectors and tensors
    removed: int  # items whose files are gone
    unchanged: int
    copied: int = 0  # files with the content of another one, counted in "added" as well: nothing was computed
    revived: int = 0  # removed items whose picture is back: nothing was computed
    withheld: dict[str, int] = field(default_factory=dict)  # by source: items kept though their files are gone
    gone_elsewhere: dict[str, int] = field(default_factory=dict)  # the same by source that the build was not given
    rejected: dict[str, int] = field(default_factory=dict)  # by reason, in the index now
    passed_over: int = 0  # files without the name of an image
    passed_over_endings: dict[str, int] = field(default_factory=dict)  # by ending, hidden files left out
    partial: dict[str, str] = field(default_factory=dict)  # by path: what was used of a new image whose file is cut
    unreadable_folders: tuple[str, ...] = ()
    seconds: float = 0.0
    completed: int = 0  # items that got missing vectors or tensors
    incomplete: int = 0  # items that still miss some: their files are gone, or have changed
    coverage: dict[str, int] = field(default_factory=dict)  # items with stored tensors, by mode
    speeds: dict[str, float] = field(default_factory=dict)  # images a second of decode, compute and write, each alone

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema": 1, **asdict(self), "slowest": slowest(self.speeds)}


@dataclass(frozen=True)
class FillReport:
    """The result of a fill."""

    index: str
    model: str
    modes: tuple[str, ...]  # the modes to fill
    items: int  # in the index
    completed: int  # items that got missing outputs
    adopted: int  # tensors taken from the cache of earlier searches
    incomplete: int  # items that still miss some: their files are gone, or have changed
    coverage: dict[str, int]  # items with stored tensors, by mode
    seconds: float = 0.0
    speeds: dict[str, float] = field(default_factory=dict)  # as in BuildReport

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema": 1, **asdict(self), "slowest": slowest(self.speeds)}
