"""Which files are images: by name when folders are walked, by their bytes once they are read.

:mod:`retrieval.images.decoding` decodes what is found here, and gives its public names out again.
"""

import heapq
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from retrieval.errors import UsageError

FileState = tuple[int, int]
"""Size in bytes and mtime_ns; (-1, -1) where the file is not to be had."""


IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif"),
        *(".tif", ".tiff", ".bmp", ".dib"),
    }
)
"""Endings (lower case) of the file names that are taken for images."""

_ENDINGS = tuple(IMAGE_SUFFIXES)
_INDEX_SUFFIX = ".diffsim"


class Paths(Sequence[Path]):
    """Paths, each made of its name when it is asked for: those of a million files would take a gigabyte."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> "Paths": ...

    def __getitem__(self, index: int | slice) -> "Path | Paths":
        return Paths(self._names[index]) if isinstance(index, slice) else Path(self._names[index])


@dataclass(frozen=True, slots=True)
class Listing:
    """What was found: ``names`` are absolute paths, sorted by the bytes of their parts, symlinks not resolved.

    ``passed_over`` counts regular files that are hidden or whose name is no image's; ``unreadable`` are the
    folders that could not be listed (in full), sorted as the files are.
    """

    names: tuple[str, ...]
    passed_over: int
    unreadable: tuple[Path, ...] = ()

    @property
    def files(self) -> "Paths":
        """The images' paths."""
        return Paths(self.names)


def find_images(sources: Sequence[Path]) -> Listing:
    """List the image files among ``sources`` (files and folders, walked recursively), by their names alone.

    The result does not depend on the order of the sources or of the file system. Hidden files and folders
    (name starts with a dot) and folders of indexes (``*.diffsim``) are skipped, unless a source is hidden
    itself. Symlinks are followed; a real folder is walked once, by a path without symlinks where there is
    one. Broken symlinks are listed if their name is an image's. UsageError for a source that does not
    exist, is an index, or is a file of another kind; finding nothing is no error.
    """
    walk = _Walk()
    for source in sources:
        path = _absolute(source)
        if not os.path.exists(path):
            raise UsageError(f"{source} does not exist: check the path and your rights to it")
        if not os.path.isdir(path):
            if not _has_image_name(path.name):
                known = ", ".join(sorted(IMAGE_SUFFIXES))
                raise UsageError(f"{source} is not an image file: its name must end in one of {known}")
            walk.names.add(str(path))
        elif _is_index(path):
            raise UsageError(f"{source} is an index, not a folder of images")
        else:
            walk.put_off(0, path)
    walk.run()
    return Listing(tuple(sorted(walk.names, key=_order)), walk.passed_over, tuple(sorted(walk.unreadable, key=_order)))


class _Walk:
    """One walk over folders. Those behind fewer symlinks come first, so that a real path wins over a link."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.passed_over = 0
        self.unreadable: set[Path] = set()
        self._waiting: list[tuple[int, bytes, Path]] = []
        self._seen: set[tuple[int, int]] = set()

    def put_off(self, links: int, folder: Path) -> None:
        """Note a folder to walk, that was reached through so many symlinks."""
        heapq.heappush(self._waiting, (links, _order(folder), folder))

    def run(self) -> None:
        """Walk all folders that were put off, and those inside them."""
        while self._waiting:
            links, _, folder = heapq.heappop(self._waiting)
            try:
                status = os.stat(folder)
                identity = (status.st_dev, status.st_ino)
                if identity in self._seen:
                    continue
                self._seen.add(identity)
                with os.scandir(folder) as entries:
                    for entry in entries:
                        self._take(entry, links)
            except OSError:
                self.unreadable.add(folder)

    def _take(self, entry: os.DirEntry[str], links: int) -> None:
        hidden = entry.name.startswith(".")
        try:
            folder, regular = entry.is_dir(), entry.is_file()
        except OSError:  # a symlink that leads nowhere or in circles: whoever reads it will say so
            folder = regular = False
        if folder:
            if not hidden and not _is_index(entry.path):
                self.put_off(links + entry.is_symlink(), Path(entry.path))
        elif not hidden and _has_image_name(entry.name):
            self.names.add(entry.path)
        elif regular:
            self.passed_over += 1


def _is_index(folder: str | Path) -> bool:
    """Tell whether this is an index, or a symlink of whatever name to one."""
    return os.fspath(folder).endswith(_INDEX_SUFFIX) or os.path.realpath(folder).endswith(_INDEX_SUFFIX)


def _has_image_name(name: str) -> bool:
    return name.lstrip(".").lower().endswith(_ENDINGS)  # .jpg alone is a name without an ending


def _order(path: str | Path) -> bytes:
    """Return the key to sort by: bytes, as a locale or a file system may order names in its own way.

    A folder's files come before those of a folder whose name begins with the first one's: no name holds a zero byte.
    """
    return os.fsencode(path).replace(os.fsencode(os.sep), b"\0")


def _absolute(source: Path) -> Path:
    """Make a path absolute; ".." is taken out only if no symlink before it gives it another sense."""
    flat = Path(os.path.abspath(source))
    try:
        return flat if os.path.samefile(flat, source) else source.absolute()
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return source.absolute()


def state_of(path: str | Path) -> FileState:
    """Return the file's state now."""
    try:
        stat = os.stat(path)
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns
