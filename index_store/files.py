"""Files that survive a crash: atomic replacement, fsync, checksums, and errors that name the file."""

import errno
import io
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import google_crc32c

from index_store.checks.opening import folder_of, list_inside, new_file, open_inside, status_inside
from index_store.errors import DiffSimError, IndexCorruptError, IndexUnreadableError, NoSpaceError
from index_store.layout import SUFFIX

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Decoded = TypeVar("_Decoded")

CHECKSUM_BYTES = 1 << 22  # of a file in memory at a time
MOST_BYTES = 1 << 28  # of a file whose size no record gives, such as a generation; a million removed ids take 12 MB
ABANDONED_SECONDS = 3600.0  # a temporary file of this age was left by a process that was killed
_TEMPORARY = ".tmp-"


@dataclass(frozen=True)
class FileRecord:
    """A file's size and checksum when it was committed."""

    size: int  # bytes
    crc32c: int

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        """Measure the file at ``path``."""
        with open_regular(path) as file:
            return cls.read(file)

    @classmethod
    def read(cls, file: BinaryIO) -> "FileRecord":
        """Measure the rest of an open file."""
        checksum = size = 0
        while block := file.read(CHECKSUM_BYTES):
            checksum = google_crc32c.extend(checksum, block)
            size += len(block)
        return cls(size, checksum)


def check_file(path: Path, record: FileRecord) -> None:
    """Raise IndexCorruptError unless the file at ``path`` still has the size and checksum of ``record``."""
    with reading(path), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        found = FileRecord.read(file) if size == record.size else FileRecord(size, 0)  # no need to read all of another
    if found != record:
        raise _changed(path, found.size, record)


def read_checked(path: Path, record: FileRecord) -> bytes:
    """Return the bytes of a file; IndexCorruptError unless they have the size and checksum of ``record``."""
    with reading(path), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read() if size == record.size else b""
    if size != record.size or google_crc32c.value(data) != record.crc32c:
        raise _changed(path, size, record)
    return data


def _changed(path: Path, size: int, record: FileRecord) -> IndexCorruptError:
    problem = "is truncated" if size < record.size else "has changed since it was written"
    return corrupt(path, f"{problem} ({size} bytes, {record.size} expected)")


class NotRegularError(OSError):
    """A folder, a pipe or a device has the name of a file."""


def open_regular(path: Path | str) -> BinaryIO:
    """Open a file of the index for reading, and never wait for a pipe or a device.

    Raises:
        NotRegularError: it is a folder, a pipe or a device.
        OSError: it can't be opened.
        IndexCorruptError: it is a link, or lies in one inside the index.
    """
    return os.fdopen(open_descriptor(path), "rb")


def open_descriptor(path: Path | str) -> int:
    """Return the descriptor of a file as :func:`open_regular` opens it."""
    descriptor = open_inside(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    return descriptor


def corrupt(path: Path | str, problem: str) -> IndexCorruptError:
    """Return the error for a damaged file; ``problem`` is the rest of a sentence that begins with its path."""
    root = next((str(folder) for folder in Path(path).parents if folder.suffix == SUFFIX), "")
    return IndexCorruptError(f"the index is damaged: {path} {problem}", advice="repair", index=root)


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn a missing or unreadable file of the index into an error that names it.

    Raises:
        IndexCorruptError: the file is missing, or a folder, a pipe or a device has its name.
        IndexUnreadableError: the system refused. That says nothing about the bytes, so it is never taken for damage.
    """
    try:
        yield
    except DiffSimError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise corrupt(path, "is missing") from error
    except (NotRegularError, IsADirectoryError) as error:
        raise corrupt(path, "is not a regular file") from error
    except PermissionError as error:
        raise IndexUnreadableError(f"this user may not read {path}; change its permissions") from error
    except OSError as error:
        raise IndexUnreadableError(f"{path} can't be read ({error.strerror or error}); it may be whole") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a read-only place into an error that says that the committed index is intact."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                f"the disk is full: {path} can't be written; everything committed is intact: free some space and "
                "run the same command to go on"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DiffSimError(f"this user may not write {path}, or the disk is read-only") from error
        raise


def atomic_write(path: Path, data: bytes) -> None:
    """Replace a file of the index by ``data``, durably; a crash leaves the old file or the new one, whole.

    Raises:
        NoSpaceError, DiffSimError: see :func:`writing`.
    """
    with writing(path):
        replace_file(path, data, durable=True)


def replace_file(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Replace ``path`` by ``data`` in one step, so that nobody ever reads a part of it.

    Args:
        path: of a file in an index; missing folders are made.
        data: the whole content.
        durable: also survive a power failure: flush the file before it gets its name, and then its folder.

    Raises:
        OSError: it could not be written; ``path`` is as before. IndexCorruptError: its folder is a symbolic link.
    """
    replace_by(path, lambda file: file.write(data), durable=durable)


def replace_by(path: Path, write: Callable[[BinaryIO], object], *, durable: bool = False) -> None:
    """Replace ``path`` as :func:`replace_file` does by what ``write`` writes into the file that it is given."""
    with folder_of(path, make=True) as (folder, name):
        temporary = os.path.join(os.path.dirname(name), _TEMPORARY + secrets.token_hex(8))
        try:
            with new_file(temporary, folder) as file:
                write(file)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException as error:
            if not isinstance(error, FileExistsError):
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
            raise
        if durable:
            _fsync_folder(name, folder)


def write_file(path: Path, data: bytes | memoryview, flush: Callable[[int], None] | None = None) -> None:
    """Write a new file of an index, and make its folder; of an older file, or a link, nothing stays.

    Args:
        path: whose content nobody reads yet: a crash may leave a part of it.
        data: the whole content.
        flush: called with the open file's descriptor, to bring it to the disk.

    Raises:
        NoSpaceError, DiffSimError: see :func:`writing`; IndexCorruptError: its folder is a symbolic link.
    """
    with writing(path), folder_of(path, make=True) as (folder, name), new_file(name, folder, replace=True) as file:
        file.write(data)
        file.flush()
        if flush is not None:
            flush(file.fileno())


def is_temporary(name: str) -> bool:
    """Say whether :func:`replace_file` gives such names to files that are not whole yet."""
    return name.startswith(_TEMPORARY)


def is_abandoned(name: str, modified: float) -> bool:
    """Say whether a killed process left the file ``name``, last modified at ``modified`` (seconds, Unix time)."""
    return is_temporary(name) and time.time() - modified > ABANDONED_SECONDS


def fsync_tree(root: Path) -> None:
    """Flush every file and folder below ``root``, and ``root`` itself, to the disk."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            _fsync(open_descriptor(os.path.join(folder, name)))
        fsync_folder_of(Path(folder, "file"))


def files_below(root: str | Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path and status of every regular file below ``root``; skip links, and files that vanish meanwhile."""
    waiting = [Path(root)]
    while waiting:
        folder = waiting.pop()
        with suppress(OSError, IndexCorruptError):
            for name in list_inside(folder):
                found = status_inside(folder / name)
                if found is not None and stat.S_ISDIR(found.st_mode):
                    waiting.append(folder / name)
                elif found is not None and stat.S_ISREG(found.st_mode):
                    yield str(folder / name), found


def fsync_folder_of(path: Path) -> None:
    """Flush the entries of the folder of ``path`` to the disk; see :func:`index_store.checks.opening.folder_of`."""
    with folder_of(path) as (folder, name):
        _fsync_folder(name, folder)


def _fsync_folder(name: str, folder: int | None) -> None:
    if os.name != "nt":  # Windows can't open folders
        _fsync(os.open(os.path.dirname(name) or os.curdir, os.O_RDONLY, dir_fd=folder))


def _fsync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_regular(path: Path) -> bytes:
    """Return the bytes of a file of the index; a link is refused, as by :func:`open_regular`."""
    with reading(path), open_regular(path) as file:
        return file.read()


def decode_or_corrupt(path: Path, decode: Callable[[bytes], _Decoded], most: int = MOST_BYTES) -> _Decoded:
    """Read ``path`` and decode it; IndexCorruptError if it has over ``most`` bytes or they make no sense to ``decode``.

    ``decode`` raises a ValueError, KeyError or TypeError for bytes that make no sense to it.
    """
    with reading(path), open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise corrupt(path, f"makes no sense (it has more than {most} bytes)")
    return decoded(path, data, decode)


def decoded(path: Path | str, data: bytes, decode: Callable[[bytes], _Decoded]) -> _Decoded:
    """Decode the bytes of the file at ``path``; IndexCorruptError if they make no sense to ``decode``."""
    try:
        return decode(data)
    except (ValueError, KeyError, TypeError) as error:
        raise corrupt(path, f"makes no sense ({type(error).__name__}: {error})") from error


def write_array(path: Path, array: "NDArray[Any]") -> None:
    """Write one npy file; NoSpaceError if the disk is full."""
    import numpy as np

    buffer = io.BytesIO()  # np.save into a file does not say why a write failed
    np.save(buffer, array)
    write_file(path, buffer.getvalue())  # not getbuffer: Python 3.13 complains of a view that a failed write leaves


def read_array(path: Path, record: FileRecord | None = None) -> "NDArray[Any]":
    """Read one npy file; IndexCorruptError if it is not one, or does not have the size and checksum of ``record``."""
    from index_store.checks.arrays import decode_array

    if record is None:
        return decode_or_corrupt(path, decode_array)
    return decoded(path, read_checked(path, record), decode_array)
