"""Bytes that survive: atomic replacement, fsync, checksums, and errors that name the file."""

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from index_store.errors import DiffSimError, IndexCorruptError, NoSpaceError
from index_store.layout import SUFFIX

_T = TypeVar("_T")
_BLOCK = 1 << 22


@dataclass(frozen=True)
class FileRecord:
    """What a file was when it was committed."""

    size: int  # bytes
    crc32c: int

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        """Measure the file at ``path``."""
        checksum = size = 0
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                checksum = google_crc32c.extend(checksum, block)
                size += len(block)
        return cls(size, checksum)


def check_file(path: Path, record: FileRecord) -> None:
    """Raise IndexCorruptError unless the file at ``path`` is still what ``record`` says."""
    with reading(path):
        found = FileRecord.of(path)
    if found != record:
        what = "is truncated" if found.size < record.size else "has changed since it was written"
        raise corrupt(path, f"{what} ({found.size} bytes, {record.size} expected)")


def corrupt(path: Path | str, what: str) -> IndexCorruptError:
    """Return the error for a damaged file: what, where, and what to do."""
    found = f"the index is damaged: {path} {what}"
    root = next((f" --index {quote(str(folder))}" for folder in Path(path).parents if folder.suffix == SUFFIX), "")
    error = IndexCorruptError(
        f"{found}; restore the file from a copy, or take out what is damaged with: diffsim-index verify --repair{root}"
    )
    error.found = found
    return error


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn a missing or unreadable file of the index into an error that names it."""
    try:
        yield
    except DiffSimError:
        raise
    except FileNotFoundError as error:
        raise corrupt(path, "is missing") from error
    except PermissionError as error:
        raise IndexCorruptError(f"{path} may not be read by this user; change its permissions") from error
    except OSError as error:
        raise corrupt(path, f"can't be read ({error.strerror or error})") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a read-only place into an error that says that the committed index is intact."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                f"the disk is full: {path} can't be written; what was committed is intact: free some space and "
                "run the same command to go on"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DiffSimError(f"{path} may not be written by this user, or the disk is read-only") from error
        raise


def atomic_write(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` so that a crash leaves either the old file or the new one, whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)


def fsync_tree(root: Path) -> None:
    """Flush every file and folder below ``root``, and ``root`` itself, to the disk."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            _fsync(os.path.join(folder, name))
        fsync_folder(Path(folder))


def files_below(root: str | Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path and status of every regular file below ``root``; what vanishes meanwhile is passed over."""
    waiting = [os.fspath(root)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file():
                        yield entry.path, entry.stat()


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk; a no-op where folders can't be opened (Windows)."""
    if os.name != "nt":
        _fsync(str(folder))


def _fsync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def decode_or_corrupt(path: Path, decode: Callable[[bytes], _T]) -> _T:
    """Read ``path`` and decode it; any failure to make sense of its bytes is an IndexCorruptError."""
    with reading(path):
        data = path.read_bytes()
    try:
        return decode(data)
    except (ValueError, KeyError, TypeError) as error:
        raise corrupt(path, f"makes no sense ({type(error).__name__}: {error})") from error


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one npy file; a full disk is a NoSpaceError."""
    buffer = io.BytesIO()  # np.save to a file does not say why a write failed
    np.save(buffer, array)
    data = buffer.getvalue()  # not getbuffer: Python 3.13 complains of a view that a failed write leaves behind
    with writing(path):
        path.write_bytes(data)


def read_array(path: Path) -> NDArray[Any]:
    """Read one npy file; IndexCorruptError where it is none."""
    array: NDArray[Any] = decode_or_corrupt(
        path, lambda data: np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    )
    return array
