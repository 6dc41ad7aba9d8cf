"""Say before long work, not after it, that its result could not be written."""

import os
from pathlib import Path

from retrieval.errors import DiffSimError


def check_writable(path: Path) -> None:
    """Raise a DiffSimError where ``path`` can't be written: a folder, or in a place where this user may not write."""
    if path.is_dir():
        raise DiffSimError(f"{path} can't be written: it is a folder; name a file")
    place = path if path.exists() else next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if place != path and not place.is_dir():
        raise DiffSimError(f"{path} can't be written: {place} is no folder")
    if not os.access(place, os.W_OK):
        raise DiffSimError(f"{path} can't be written: {place} may not be written by this user")
