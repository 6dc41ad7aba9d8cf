"""Open, list, make and remove files of an index without ever following a symbolic link inside it.

Each folder between the index's own and the file is opened from the one above it, and no step follows a link. So a
link that is put there while an index is in use leads nowhere either: nothing is checked first and opened later.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from index_store.checks.links import FILES, FOLDERS, link_error, refuse_below

_STEPS = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")  # Windows has neither
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
NEW_FILE = 0o666  # its permissions, less those that the user's mask takes away
_LINKS = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR)  # what systems answer where a step would follow a link


def root_of(path: str) -> str:
    """Return the folder of the index that ``path`` lies in: the one above the last of :data:`FOLDERS` in it.

    A file elsewhere belongs to its parent. No segment, mode or file below has the name of one of the index's own.
    """
    return _split(path)[0]


def _split(path: str) -> tuple[str, list[str]]:
    """Return the folder of the index that ``path`` lies in, and the names of folders and file below it.

    Searches open hundreds of files each, so the path is taken apart once.
    """
    parts = path.split(os.sep)
    own = len(parts) - 1
    if parts[-1] not in FILES:
        own = next((place for place in range(own, -1, -1) if parts[place] in FOLDERS), own)
    root = os.sep.join(parts[:own]) or (os.sep if path.startswith(os.sep) else os.curdir)
    below = parts[own:]
    if "" in below or os.curdir in below or os.pardir in below:
        below = os.path.relpath(path, root).split(os.sep)
    return root, below


def open_inside(path: Path | str, flags: int) -> int:
    """Return the descriptor of a file or folder of an index, opened with ``flags``.

    Raises:
        OSError: as of :func:`os.open`.
        IndexCorruptError: it is a symbolic link, or lies in one.
    """
    with folder_of(path) as (folder, name):
        return _step(os.fspath(path), name, flags, folder)


@contextmanager
def folder_of(path: Path | str, make: bool = False) -> Iterator[tuple[int | None, str]]:
    """Yield the descriptor of the folder of ``path``, and the name in it: two arguments of functions of :mod:`os`.

    A system without such descriptors gets None and the whole path, which is checked first and opened later.

    Args:
        path: of a file or folder in an index.
        make: make the folders that are missing.

    Raises:
        OSError: a folder is missing, or this user may not open or make it.
        IndexCorruptError: a folder on the way is a symbolic link.
    """
    place = os.fspath(path)
    root, (*between, name) = _split(place)
    if not _STEPS:
        refuse_below(root, place)
        if make:
            os.makedirs(os.path.dirname(place) or os.curdir, exist_ok=True)
        yield None, place
        return
    if make and not os.path.isdir(root):
        os.makedirs(root, exist_ok=True)
    folder = os.open(root, _FOLDER)
    try:
        for step in between:
            below = _enter(place, step, folder, make)
            os.close(folder)
            folder = below
        yield folder, name
    finally:
        os.close(folder)


def _enter(path: str, name: str, folder: int, make: bool) -> int:
    try:
        return _step(path, name, _FOLDER, folder)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # another thread or process was faster
        os.mkdir(name, dir_fd=folder)
    return _step(path, name, _FOLDER, folder)


def _step(path: str, name: str, flags: int, folder: int | None) -> int:
    try:
        return os.open(name, flags | _NOFOLLOW, NEW_FILE, dir_fd=folder)
    except OSError as error:
        if error.errno in _LINKS and _is_link(name, folder):
            raise link_error(path) from error
        error.filename = path
        raise


def _is_link(name: str, folder: int | None) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def list_inside(folder: Path) -> list[str]:
    """Return the names in a folder of an index, sorted; errors as of :func:`open_inside`."""
    if os.listdir not in os.supports_fd:
        refuse_below(root_of(os.fspath(folder)), os.path.join(folder, "x"))
        return sorted(os.listdir(folder))
    descriptor = open_inside(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        return sorted(os.listdir(descriptor))
    finally:
        os.close(descriptor)


def folders_inside(folder: Path) -> list[Path]:
    """Return the folders in a folder of an index, links left out; none if it is missing."""
    with suppress(FileNotFoundError, NotADirectoryError):
        paths = [folder / name for name in list_inside(folder)]
        return [path for path in paths if (found := status_inside(path)) and stat.S_ISDIR(found.st_mode)]
    return []


def status_inside(path: Path) -> os.stat_result | None:
    """Return the status of a file or folder of an index, of a link its own; None if there is nothing.

    Raises:
        OSError: this user may not look for it.
        IndexCorruptError: a folder on the way is a symbolic link.
    """
    try:
        with folder_of(path) as (folder, name):
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def exists_inside(path: Path) -> bool:
    """Say whether there is a file or folder at this path of an index, or a link; errors as of status_inside."""
    return status_inside(path) is not None


def remove_file(path: Path) -> None:
    """Remove a file of an index, or a link in its place; nothing happens where there is none.

    Raises:
        OSError: it can't be removed.
        IndexCorruptError: a folder on the way is a symbolic link.
    """
    with suppress(FileNotFoundError), folder_of(path) as (folder, name):
        os.unlink(name, dir_fd=folder)


def remove_tree(path: Path) -> None:
    """Remove a folder of the index, best effort; of a link only the link itself, never what it leads to.

    Raises:
        IndexCorruptError: a folder on the way is a symbolic link.
    """
    with suppress(FileNotFoundError, NotADirectoryError), folder_of(path) as (folder, name):
        if _is_link(name, folder):
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
        else:
            shutil.rmtree(name, ignore_errors=True, dir_fd=folder)


def make_folder(path: Path) -> None:
    """Make a folder of an index, and those between the index's own and it.

    Raises:
        FileExistsError: something has its name.
        OSError, IndexCorruptError: see :func:`folder_of`.
    """
    with folder_of(path, make=True) as (folder, name):
        os.mkdir(name, dir_fd=folder)


def new_file(name: str, folder: int | None, replace: bool = False) -> BinaryIO:
    """Create a file in a folder of :func:`folder_of`.

    Args:
        name: of the file.
        folder: its folder.
        replace: remove a file or link that has the name; nothing is ever written to it.

    Raises:
        FileExistsError: something has the name and stays.
        OSError: the file can't be made.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | getattr(os, "O_BINARY", 0)
    try:
        return os.fdopen(os.open(name, flags, NEW_FILE, dir_fd=folder), "wb")
    except FileExistsError:
        if not replace:
            raise
    os.unlink(name, dir_fd=folder)
    return new_file(name, folder)
