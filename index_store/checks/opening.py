"""Open, list and look at files of an index, and remove them, without ever following a symbolic link inside it.

Each folder between the index's own and the file is opened from the one above it, and no step follows a link. So a
link that is put there while an index is read leads nowhere either: nothing is checked first and opened later.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from index_store.checks.links import FILES, FOLDERS, link_error, refuse_below

_STEPS = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")  # Windows has neither
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
_LINKS = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR)  # what systems answer where a step would follow a link


def root_of(path: str) -> str:
    """Return the folder of the index that ``path`` lies in: the one above the last of :data:`FOLDERS` in it.

    A file elsewhere belongs to its parent. No segment, mode or file below has the name of one of the index's own.
    """
    own, name = os.path.split(path)
    if name in FILES:
        return own or os.curdir
    above = path
    while above not in ("", os.path.dirname(above)):
        above, name = os.path.split(above)
        if name in FOLDERS:
            return above or os.curdir
    return own or os.curdir


def open_inside(path: Path | str, flags: int) -> int:
    """Return the descriptor of a file or folder of an index, opened with ``flags``.

    Raises:
        OSError: as of :func:`os.open`.
        IndexCorruptError: it is a symbolic link, or lies in one.
    """
    place = os.fspath(path)
    if not _STEPS:
        refuse_below(root_of(place), place)
        return os.open(place, flags | _NOFOLLOW)
    with _folder_of(place) as (folder, name):
        return _step(place, name, flags, folder)


@contextmanager
def _folder_of(path: str) -> Iterator[tuple[int, str]]:
    """Yield the descriptor of the folder of ``path``, and the name in it."""
    root = root_of(path)
    *between, name = os.path.relpath(path, root).split(os.sep)
    folder = os.open(root, _FOLDER)
    try:
        for step in between:
            below = _step(path, step, _FOLDER, folder)
            os.close(folder)
            folder = below
        yield folder, name
    finally:
        os.close(folder)


def _step(path: str, name: str, flags: int, folder: int) -> int:
    try:
        return os.open(name, flags | _NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno in _LINKS and _is_link(name, folder):
            raise link_error(path) from error
        error.filename = path
        raise


def _is_link(name: str, folder: int) -> bool:
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
    place = os.fspath(path)
    try:
        if not _STEPS:
            refuse_below(root_of(place), place)
            return os.lstat(place)
        with _folder_of(place) as (folder, name):
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
    place = os.fspath(path)
    with suppress(FileNotFoundError):
        if not _STEPS:
            refuse_below(root_of(place), place)
            os.unlink(place)
            return
        with _folder_of(place) as (folder, name):
            os.unlink(name, dir_fd=folder)


def remove_tree(path: Path) -> None:
    """Remove a folder of the index, best effort; of a link only the link itself, never what it leads to.

    Raises:
        IndexCorruptError: a folder on the way is a symbolic link.
    """
    place = os.fspath(path)
    if not _STEPS:
        refuse_below(root_of(place), place)
        shutil.rmtree(place, ignore_errors=True)
        return
    with suppress(FileNotFoundError, NotADirectoryError), _folder_of(place) as (folder, name):
        if _is_link(name, folder):
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
        else:
            shutil.rmtree(name, ignore_errors=True, dir_fd=folder)
