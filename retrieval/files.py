"""Say before long work, not after it, that its result could not be written."""

import os
from pathlib import Path

from index_store.files import replace_file as replace_file  # passed on to the packages that may not know the store
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


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data)


def write_text(path: Path, text: str) -> None:
    """Write a file, making its folder; a failure is a DiffSimError that names it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise DiffSimError(f"{path} can't be written: {error.strerror or error}") from error
