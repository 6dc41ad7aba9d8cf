"""Which files are images: by name when folders are walked, by their bytes once they are read.

:mod:`retrieval.images` decodes what is found here, and gives its public names out again.
"""

import heapq
import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from retrieval.errors import ImageError, UsageError

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif"),
        *(".tif", ".tiff", ".bmp", ".dib"),
    }
)
"""Endings (lower case) of the file names that are taken for images."""

_ENDINGS = tuple(IMAGE_SUFFIXES)
_INDEX_SUFFIX = ".diffsim"
# No known format holds an image of a sensible size in more bytes than this, so no such file is read.
_MAX_FILE_BYTES = 2**32
_MARKS = (
    ("JPEG", (b"\xff\xd8\xff",)),
    ("PNG", (b"\x89PNG\r\n\x1a\n",)),
    ("GIF", (b"GIF87a", b"GIF89a")),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
)
# Bytes per value of the types 0 to 13 in a TIFF directory.
_TIFF_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4)
_BITMAP_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)


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


def read_bytes(path: Path) -> tuple[bytes, int]:
    """Return the bytes of a regular file and its modification time in ns since 1970.

    Raises ImageError: bad_name, permission, vanished, too_large (above 4 GiB), or unreadable. It never waits
    on a FIFO. MemoryError is let through.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise ImageError("bad_name", shown, "has a name that is not valid UTF-8") from error
    name = str(path)
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("unreadable", name, "is not a regular file")
            if status.st_size > _MAX_FILE_BYTES:
                raise ImageError("too_large", name, f"is a file of {status.st_size} bytes")
            return file.read(), status.st_mtime_ns
    except PermissionError as error:
        raise ImageError("permission", name, "may not be read by this user") from error
    except FileNotFoundError as error:
        raise ImageError("vanished", name, "does not exist (any more)") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        cause = getattr(error, "strerror", None) or error
        raise ImageError("unreadable", name, f"can't be read: {cause}") from error


def sniff(data: bytes) -> str | None:
    """Return the format that a file's first bytes announce, None if it is not one that is decoded here.

    One of JPEG, PNG, GIF, TIFF, WEBP, AVIF, BMP, DIB; the first 256 bytes of ``data`` are enough.
    """
    for kind, marks in _MARKS:
        if data.startswith(marks):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        # HEIC can have the same major brands as AVIF; the compatible ones behind them tell which it is.
        brands = data[8 : max(12, min(int.from_bytes(data[:4], "big"), 256))]
        return "AVIF" if b"avif" in brands or b"avis" in brands else None
    if data[:2] == b"BM" and _is_bitmap_header(data[14:18]):  # the letters alone begin much text
        return "BMP"
    # A bitmap without the file header has no mark but its size; it has one plane always.
    planes = data[8:10] if data[0:1] == b"\x0c" else data[12:14]
    return "DIB" if _is_bitmap_header(data) and planes == b"\1\0" else None


def ends_early(kind: str, data: bytes) -> bool:
    """Tell whether the structure of a damaged file of this kind points past its last byte.

    For a format that says nothing of its length: whether its end mark is missing.
    """
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "TIFF":
        return _tiff_end(data) > len(data)
    if kind == "AVIF":
        at = 0
        while at + 8 <= len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            if size < 8:  # 0: to the end of the file; 1: a box of gigabytes; others are broken
                return False
            at += size
        return at != len(data)
    mark = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}.get(kind, b"")
    return mark not in data.rstrip(b"\0")[-8:]


def _is_bitmap_header(header: bytes) -> bool:
    return int.from_bytes(header[:4], "little") in _BITMAP_HEADER_BYTES


def _tiff_end(data: bytes) -> int:
    """Return where the first directory of a classic TIFF and the values it points to end; 0 for BigTIFF."""
    order = "<" if data[:2] == b"II" else ">"
    if b"+" in data[2:4]:
        return 0
    start = int(struct.unpack(order + "I", data[4:8].ljust(4, b"\0"))[0])
    if start + 2 > len(data):
        return start + 2
    (entries,) = struct.unpack_from(order + "H", data, start)
    end = int(start + 2 + 12 * entries)
    if end > len(data):
        return end
    for index in range(entries):
        _, kind, count, where = struct.unpack_from(order + "HHII", data, start + 2 + 12 * index)
        size = count * _TIFF_TYPE_BYTES[kind if kind < len(_TIFF_TYPE_BYTES) else 0]
        end = max(end, where + size if size > 4 else 0)
    return end


def _open_without_waiting(path: str, flags: int) -> int:
    """Open for reading; without O_NONBLOCK a FIFO would hold the caller until somebody writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


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
