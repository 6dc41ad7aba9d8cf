"""Write results to files of the user: whole or not at all, and checked before the long work that makes them."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index_store.files import replace_file
from retrieval.errors import DiffSimError, NoSpaceError


def check_writable(path: Path) -> None:
    """Raise a DiffSimError unless a file can be written at ``path``."""
    if path.is_dir():
        raise DiffSimError(f"{path} can't be written: it is a folder; name a file")
    place = path if path.exists() else next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if place != path and not place.is_dir():
        raise DiffSimError(f"{path} can't be written: {place} is not a folder")
    if not os.access(place, os.W_OK):
        raise DiffSimError(f"{path} can't be written: this user may not write to {place}")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file and make its folder. An older file is replaced only once the new one is complete.

    Raises:
        NoSpaceError: the disk is full.
        DiffSimError: any other failure; the message names the file.
    """
    with writing_file(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)


@contextmanager
def writing_file(path: Path) -> Iterator[None]:
    """Turn an OSError of the work inside into a NoSpaceError or a DiffSimError that names the file."""
    try:
        yield
    except OSError as error:
        kind = NoSpaceError if error.errno in (errno.ENOSPC, errno.EDQUOT) else DiffSimError
        raise kind(f"{path} can't be written: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file as :func:`write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))
