"""Symbolic links inside an index are never followed: one from elsewhere could lead to any file of this user.

The index's own folder may be reached through links, so a whole index can lie on another disk.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from index_store.errors import IndexCorruptError

FOLDERS = ("generations", "items", "attention", "projections", "derived", "cache")
FILES = ("CURRENT", "LOCK", "REMOTE")
OF_SEGMENT = ("vectors", "spare", os.path.join("spare", "vectors"))  # folders; a link in the place of a file is damage


def link_error(path: Path | str) -> IndexCorruptError:
    """Return the error for a symbolic link inside an index."""
    return IndexCorruptError(
        f"{path} is a symbolic link inside an index, and such links are not followed: an index from elsewhere could "
        "lead one to any file; put the real folder or file there"
    )


def refuse_links(root: Path) -> None:
    """Raise IndexCorruptError if a file or folder of the index at ``root``, a mode or a segment is a link."""
    refuse_any(os.path.join(root, name) for name in (*FOLDERS, *FILES))
    for parent, below in (("attention", ()), ("items", OF_SEGMENT)):
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(os.path.join(root, parent)) as entries:
            for entry in entries:
                refuse_any([entry.path, *(os.path.join(entry.path, name) for name in below)])


def refuse_any(paths: Iterable[str]) -> None:
    """Raise IndexCorruptError if one of ``paths`` is a symbolic link."""
    for path in paths:
        with suppress(FileNotFoundError, NotADirectoryError):
            if stat.S_ISLNK(os.lstat(path).st_mode):
                raise link_error(path)


def refuse_below(folder: str, path: str) -> None:
    """Raise IndexCorruptError if a folder between ``folder`` and the file ``path`` below it is a symbolic link."""
    parent = os.path.dirname(path)
    while len(parent) > len(folder):
        refuse_any([parent])
        parent = os.path.dirname(parent)
