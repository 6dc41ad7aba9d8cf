"""What a build says while it runs, and what it did in the end."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class BuildEvent:
    """One step of a build, for whoever shows its progress."""

    kind: Literal["planned", "model", "loaded", "batch", "committed", "training"]
    message: str = ""
    done: int = 0  # files dealt with in this run
    total: int = 0  # files to deal with in this run
    rejected: int = 0


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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema": 1, **asdict(self)}
