"""Parse option values: lists of names, whole numbers, sizes in bytes, encoders with their folders."""

import re

from retrieval.errors import UsageError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_names(text: str) -> list[str]:
    """Read ``style, instance`` as a list of names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_bytes(text: str) -> int:
    """Read ``2GB``, ``500 MB`` or a plain number of bytes.

    Raises:
        UsageError: ``text`` is not a size.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([KMGT]?)B?", text.strip().upper())
    if found is None:
        raise UsageError(f"'{text}' is not a size; write it like 2GB, 500MB or 0")
    return int(float(found[1]) * _UNITS[found[2]])


def parse_encoders(text: str) -> dict[str, str | None]:
    """Read ``clip,dinov2=FOLDER`` as a mapping of names to folders; ``none`` gives an empty one."""
    if text.strip() == "none":
        return {}
    parts = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError("--encoders needs names, like clip,dinov2=FOLDER, or none")
    return {name: folder or None for name, _, folder in parts}


def parse_numbers(text: str) -> list[int]:
    """Read ``500,750`` as whole numbers above 0.

    Raises:
        UsageError: ``text`` is anything else.
    """
    parts = parse_names(text)
    if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"'{text}' is not a list of whole numbers above 0; write it like 500,750")
    return [int(part) for part in parts]
