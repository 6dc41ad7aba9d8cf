"""Numbers, sizes and names as words for people."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def printable(text: str) -> str:
    """Return ``text`` on one line, with a replacement for whatever has no shape or would reorder it."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


def counted(count: int, thing: str) -> str:
    """Return ``1 image`` or ``2 images``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def human_bytes(count: float) -> str:
    """Return ``count`` bytes in the unit a person would choose."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
