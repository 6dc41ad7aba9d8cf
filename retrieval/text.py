"""Numbers, sizes and names as text for people."""

import unicodedata

_JOINERS = "\u200c\u200d"  # invisible, but the spelling of Persian names and of some emoji needs them


def escaped(text: str) -> str:
    """Return ``text`` on one line; control, reordering and undecodable characters become escapes such as ``\\x1b``.

    A terminal would obey such characters of a file's name: move its cursor, change its title, reverse the line.
    """
    return text if text.isprintable() else "".join(c if _is_harmless(c) else repr(c)[1:-1] for c in text)


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def printable(text: str) -> str:
    """Return ``text`` on one line; a replacement character stands for invisible and reordering characters."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


def counted(count: int, thing: str) -> str:
    """Return ``1 image`` or ``2 images``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def human_bytes(count: float) -> str:
    """Return ``count`` bytes as ``512 B``, ``46.2 kB`` or ``3.9 MB``: decimal units, one digit after the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
