"""The result of a change to an index, or of its export."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """The result of a change to an index."""

    index: str
    items: int  # in the index now
    removed: int = 0
    segments: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema": 1, **asdict(self)}
