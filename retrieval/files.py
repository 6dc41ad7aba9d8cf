"""Write results to files of the user: whole or not at all, and checked before the long work that makes them.

Also read the user's objects in a bucket, which are named ``s3://BUCKET/KEY``. As a Path such a name has one slash only.
"""

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from index_store.files import replace_file
from index_store.remote.object_store import OBJECT, ObjectStore, configured_endpoint, is_object, open_store
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
        replace_file(path.parent.resolve() / path.name, data)  # links on the way are the user's own


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


ObjectState = tuple[int, int, int]
"""Size in bytes, time of modification in ns, and -1: a store tells no other time."""

READ_AHEAD = 1 << 20  # bytes that one request for a part of an object fetches at least


def split_object(name: str | Path) -> tuple[str, str]:
    """Return the bucket and the key of ``s3://BUCKET/KEY``; the key is empty for a whole bucket."""
    bucket, _, key = os.fspath(name).removeprefix(OBJECT).lstrip("/").partition("/")
    return bucket, key.strip("/")


def object_name(name: str | Path) -> str:
    """Return the name of an object or a prefix with both slashes."""
    return "/".join([f"{OBJECT}/", *filter(None, split_object(name))])


def absolute_path(name: str | Path) -> str:
    """Return the absolute path of a file; the name of an object in a bucket, which has no other."""
    return object_name(name) if is_object(name) else str(Path(name).absolute())


@lru_cache(maxsize=8)
def _bucket(bucket: str, endpoint: str | None) -> ObjectStore:
    return open_store(f"{OBJECT}//{bucket}", endpoint)


def _opened(name: str | Path) -> tuple[ObjectStore, str]:
    bucket, key = split_object(name)
    return _bucket(bucket, configured_endpoint()), key


def list_objects(name: str | Path) -> Iterator[tuple[str, ObjectState]]:
    """Yield the name and state of every object below ``name``, a bucket or a prefix with whole parts.

    Raises:
        RemoteStoreError: the store can't be reached, or the extra s3 is not installed.
    """
    bucket, key = split_object(name)
    store, _ = _opened(name)
    for entry in store.list(key):
        yield f"{OBJECT}//{bucket}/{entry.key}", (entry.size, _in_ns(entry.modified.timestamp()), -1)


def object_state(name: str | Path) -> ObjectState | None:
    """Return the state of an object; None if there is none. Raises as :func:`list_objects`."""
    store, key = _opened(name)
    found = store.head(key) if key else None
    return None if found is None else (found.size, _in_ns(found.modified.timestamp()), -1)


def read_object(name: str | Path, before: Callable[[int], None]) -> tuple[bytes, ObjectState] | None:
    """Return the bytes and the state of an object; None if there is none. ``before`` gets its size and may raise."""
    store, key = _opened(name)
    found = store.get(key, before)
    return None if found is None else (found.data, (len(found.data), _in_ns(found.modified.timestamp()), -1))


def open_object(name: str | Path, size: int) -> io.BufferedReader:
    """Open an object of ``size`` bytes for reading in parts, each fetched by a request."""
    return io.BufferedReader(_ObjectParts(*_opened(name), size), READ_AHEAD)


class _ObjectParts(io.RawIOBase):
    """An object as a file; each read is one request."""

    def __init__(self, store: ObjectStore, key: str, size: int) -> None:
        self._store, self._key, self._size, self._at = store, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        (data,) = self._store.ranges(self._key, [(self._at, length)])
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _in_ns(seconds: float) -> int:
    return int(seconds) * 10**9  # a list tells milliseconds, and an object's own headers do not


def is_folder(name: str | Path) -> bool:
    """Say whether a source is a folder that is there; a bucket, or a prefix in it, counts as one without a question."""
    return is_object(name) or os.path.isdir(name)


__all__ = [
    "ObjectState",
    "absolute_path",
    "check_writable",
    "is_folder",
    "is_object",
    "list_objects",
    "object_name",
    "object_state",
    "open_object",
    "read_object",
    "split_object",
    "write_bytes",
    "write_text",
    "writing_file",
]
