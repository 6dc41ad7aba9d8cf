"""Tensors that searches computed on demand, kept within a budget of bytes: a cache, and part of no generation.

One file an item and mode, ``cache/<mode>/<digest>/<id modulo 1000>/<id>``; the digest is that of everything that a
tensor depends on. Ids are never given twice, so a name means one content for ever. No lock is needed: a file appears
under its name whole, by a rename, and whoever finds it missing or damaged computes it again. What was used longest
ago leaves first; the time of a file's last change is that of its last use.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from index_store.files import files_below
from index_store.layout import Layout

FULL_SHARE = 0.9  # of the budget that making room leaves, so that not every file makes room anew
ORPHAN_SECONDS = 3600.0  # an unfinished file that is older was left by a kill
FOLDERS = 1000
_HEADER = "DIFFSIM-TENSORS 1"
_CRC_BYTES = 4
_UNFINISHED = ".tmp-"

Arrays = Mapping[str, NDArray[Any]]
"""One item's arrays by name, any shape and plain dtype."""


@dataclass(frozen=True)
class CacheKey:
    """What a cached file is of: a mode, the digest of all that its tensors depend on, and an item."""

    mode: str
    digest: str
    id: int


class _Entry(NamedTuple):
    last_used_ns: int
    path: str
    size: int  # bytes


class TensorCache:
    """The cache of one index; safe in many threads and processes. Every failure to keep a file is told by False."""

    def __init__(self, layout: Layout, budget: int) -> None:
        """Keep at most ``budget`` bytes; 0 keeps nothing, and reads what is there."""
        self._root, self._budget = layout.cache, budget
        self._room = threading.Lock()
        self._bytes: int | None = None  # in the cache, by the last look and what was written since

    @property
    def is_wanted(self) -> bool:
        """Whether anything is to be kept."""
        return self._budget > 0

    def get(self, key: CacheKey) -> dict[str, NDArray[Any]] | None:
        """Return an item's arrays, or None where they are not kept, damaged, or of something else."""
        path = self._path(key)
        try:
            found = _decode(path.read_bytes(), key)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with suppress(OSError):  # a cache that may not be written is as good for reading
            now = time.time_ns()
            os.utime(path, ns=(now, now))
        return found

    def put(self, key: CacheKey, arrays: Arrays) -> bool:
        """Keep an item's arrays; False where that can't be done: no room in the budget or on the disk, no right."""
        data = _encode(key, arrays)
        path = self._path(key)
        unfinished = path.with_name(f"{_UNFINISHED}{os.getpid()}-{threading.get_ident()}-{key.id}")
        try:
            if not self._make_room(len(data)):
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(data)
            os.replace(unfinished, path)
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            return False
        return True

    def ids(self, mode: str, digest: str) -> set[int]:
        """Return the ids of the items that are kept of a mode; whether whole, :meth:`get` decides."""
        names = (path.name for path in (self._root / mode / digest).glob("*/*"))
        return {int(name) for name in names if name.isdecimal()}

    def drop(self, key: CacheKey) -> None:
        """Forget an item; best effort."""
        with suppress(OSError):
            self._path(key).unlink()

    def _path(self, key: CacheKey) -> Path:
        return self._root / key.mode / key.digest / f"{key.id % FOLDERS:03d}" / f"{key.id}"

    def _make_room(self, size: int) -> bool:
        """Take out what was used longest ago until ``size`` more bytes fit; False where they never can."""
        if size > self._budget:
            return False
        with self._room:
            if self._bytes is None or self._bytes + size > self._budget:
                entries = list(_entries(self._root))
                self._bytes = sum(entry.size for entry in entries)
                target = min(self._budget - size, int(FULL_SHARE * self._budget))
                if self._bytes + size > self._budget:
                    # Not what another process is writing just now: it would never appear.
                    finished = (entry for entry in entries if not os.path.basename(entry.path).startswith(_UNFINISHED))
                    self._evict(sorted(finished), target)
            self._bytes += size
        return True

    def _evict(self, entries: list[_Entry], target: int) -> None:
        assert self._bytes is not None
        for entry in entries:
            if self._bytes <= target:
                break
            with suppress(OSError):
                os.unlink(entry.path)
            self._bytes -= entry.size


def cache_size(layout: Layout) -> tuple[int, int]:
    """Return how many tensors the cache of an index holds, and their bytes."""
    sizes = [entry.size for entry in _entries(layout.cache)]
    return len(sizes), sum(sizes)


def _entries(root: Path) -> Iterator[_Entry]:
    """Yield every file of the cache, and remove what killed processes left unfinished."""
    for path, status in files_below(root):
        name = os.path.basename(path)
        if name.startswith(_UNFINISHED) and time.time() - status.st_mtime > ORPHAN_SECONDS:
            with suppress(OSError):  # another process may have taken it out
                os.unlink(path)
        else:
            yield _Entry(status.st_mtime_ns, path, status.st_size)


def _encode(key: CacheKey, arrays: Arrays) -> bytes:
    """Return a file's bytes: a line of JSON, the arrays one after the other, and a CRC-32C of all that."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = {
        "format": _HEADER,
        "mode": key.mode,
        "digest": key.digest,
        "id": key.id,
        "arrays": {name: {"dtype": array.dtype.str, "shape": array.shape} for name, array in whole.items()},
    }
    body = json.dumps(header).encode() + b"\n" + b"".join(array.tobytes() for array in whole.values())
    return body + int(google_crc32c.value(body)).to_bytes(_CRC_BYTES, "little")


def _decode(data: bytes, key: CacheKey) -> dict[str, NDArray[Any]]:
    """Read what :func:`_encode` wrote; ValueError, KeyError or TypeError for anything else."""
    body, checksum = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    if int(google_crc32c.value(body)) != int.from_bytes(checksum, "little"):
        raise ValueError("the checksum does not match")
    line, _, rest = body.partition(b"\n")
    header = json.loads(line)
    if (header["format"], header["mode"], header["digest"], header["id"]) != (_HEADER, key.mode, key.digest, key.id):
        raise ValueError("it is of something else")
    found: dict[str, NDArray[Any]] = {}
    offset = 0
    for name, about in header["arrays"].items():
        dtype, shape = np.dtype(about["dtype"]), tuple(about["shape"])
        count = int(np.prod(shape))
        found[name] = np.frombuffer(rest, dtype, count, offset).reshape(shape)
        offset += count * dtype.itemsize
    return found
