"""Groups of duplicates as they are given out, for tables, JSON and a server."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from retrieval.search.results import Note

Level = Literal["same", "similar"]
"""``same``: copies of one picture. ``similar``: pictures that are much alike, and none of them a copy of another."""

SCHEMA = 1


@dataclass(frozen=True)
class Member:
    """One image of a group, beside the image that is kept."""

    id: int
    path: str
    sha256: str
    width: int  # pixels, upright
    height: int
    file_bytes: int
    sharpness: float | None  # scale to which it shrinks without loss of detail; None: the file is gone
    changes: tuple[str, ...]  # how it differs from the kept image, e.g. "mirrored"; empty for the kept one
    share: float | None  # of the structure, 0 to 1, that agrees with the kept image; None: not compared by pixels
    score: float | None  # exact score with the kept image; None: the index has no tensors of one of them
    is_kept: bool
    is_reference: bool  # lies in a reference folder, and is never offered for deletion
    is_there: bool  # the file is where the index says, and unchanged

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "changes": list(self.changes)}


@dataclass(frozen=True)
class Group:
    """Images that belong together, the kept one first."""

    level: Level
    members: tuple[Member, ...]
    reason: str  # why the first one is kept, as a clause; empty for similar images, which are all kept

    @property
    def kept(self) -> Member:
        """The image to keep; of similar images one that stands for all."""
        return self.members[0]

    @property
    def offered(self) -> tuple[Member, ...]:
        """The members that may be deleted: copies whose files are there, outside of reference folders."""
        if self.level != "same":
            return ()
        return tuple(m for m in self.members if not m.is_kept and not m.is_reference and m.is_there)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "level": self.level,
            "reason": self.reason,
            "members": [member.to_dict() for member in self.members],
            "offered": [member.id for member in self.offered],
        }


@dataclass(frozen=True)
class Duplicates:
    """The groups of one index: the same pictures first, each kind with the largest groups first."""

    index: str
    images: int
    mode: str | None  # whose exact scores were used; None: the index has no tensors
    groups: tuple[Group, ...]
    notes: tuple[Note, ...]
    timing_s: Mapping[str, float]  # seconds by stage

    @property
    def offered(self) -> tuple[Member, ...]:
        """The members of all groups that may be deleted."""
        return tuple(member for group in self.groups for member in group.offered)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "schema": SCHEMA,
            "index": self.index,
            "images": self.images,
            "mode": self.mode,
            "groups": [group.to_dict() for group in self.groups],
            "offered": {
                "images": len(self.offered),
                "bytes": sum(member.file_bytes for member in self.offered),
            },
            "notes": [note.message for note in self.notes],
            "timing_s": dict(self.timing_s),
        }
