"""An LRU cache on disk of tensors that searches computed, within a budget of bytes; part of no generation.

One file per image and mode, ``cache/<mode>/<digest>/<first three digits>/<SHA-256>``. The SHA-256 is that of the image
file, and the digest covers everything else that a tensor depends on. So a name has one content for ever, even if an
older copy of the index is put in its place and gives its ids again. No lock is needed: a file appears whole, by a
rename, and a search that finds it missing or damaged computes the tensors again. The least recently used file is
evicted first; a file's modification time is the time of its last use.
"""

import json
import logging
import math
import os
import re
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

from index_store.checks.json_values import mapping, parse_json, sequence, whole_number
from index_store.checks.opening import folders_inside, list_inside, remove_file
from index_store.errors import IndexCorruptError
from index_store.files import files_below, is_abandoned, is_temporary, open_regular, replace_file
from index_store.layout import Layout

LOG = logging.getLogger(__name__)

FULL_SHARE = 0.9  # of the budget stays in use after an eviction, so that not every new file evicts
FOLDER_DIGITS = 3  # of the SHA-256: a folder for each would be too many, one for all too full
_HEADER = "DIFFSIM-TENSORS 2"
_CRC_BYTES = 4
_DTYPE = re.compile(r"[<|][iuf][1248]")
SHA256_DIGITS = 64

Arrays = Mapping[str, NDArray[Any]]
"""One image's arrays by name, any shape and plain dtype."""


@dataclass(frozen=True)
class CacheKey:
    """Identifies a cached file: a mode, an image, and the digest of everything else that its tensors depend on."""

    mode: str
    digest: str
    sha256: str  # of the image file


class _Entry(NamedTuple):
    last_used_ns: int
    path: str
    size: int  # bytes


class TensorCache:
    """The cache of one index; safe in many threads and processes. A failure to keep a file is False, not an error."""

    def __init__(self, layout: Layout, budget: int) -> None:
        """Keep at most ``budget`` bytes; 0 keeps no new file, and still reads older ones."""
        self._root, self._budget = layout.cache, budget
        self._lock = threading.Lock()
        self._bytes: int | None = None  # in the cache: counted once, then added up; None: not counted yet

    @property
    def is_wanted(self) -> bool:
        """Whether new files are kept."""
        return self._budget > 0

    def get(self, key: CacheKey) -> dict[str, NDArray[Any]] | None:
        """Return an image's arrays; None if they are missing, damaged, or of something else."""
        path = self._path(key)
        try:
            found = _decode(self._read(path), key)
        except (OSError, IndexCorruptError):
            return None
        except (ValueError, KeyError, TypeError) as error:
            LOG.warning("%s is damaged, so its tensors are computed again: %s", path, error)
            return None
        return found

    def put(self, key: CacheKey, arrays: Arrays) -> bool:
        """Keep an image's arrays; False if they don't fit in the budget or on the disk, or may not be written."""
        data = _encode(key, arrays)
        path = self._path(key)
        try:
            if not self._make_room(len(data)):
                return False
            replace_file(path, data)
        except (OSError, IndexCorruptError):
            return False
        return True

    def _read(self, path: Path) -> bytes:
        now = time.time_ns()
        with open_regular(path) as file:
            with suppress(OSError):  # a read-only cache is still good for reading
                os.utime(file.fileno() if os.utime in os.supports_fd else path, ns=(now, now))
            return file.read()

    def images(self, mode: str, digest: str) -> set[str]:
        """Return the SHA-256 of the images in the cache; a file may still turn out to be damaged in :meth:`get`."""
        folders = folders_inside(self._root / mode / digest)
        names = [name for folder in folders for name in list_inside(folder)]
        return {name for name in names if len(name) == SHA256_DIGITS}

    def drop(self, key: CacheKey) -> None:
        """Remove an image, best effort."""
        with suppress(OSError):
            remove_file(self._path(key))

    def _path(self, key: CacheKey) -> Path:
        return self._root / key.mode / key.digest / key.sha256[:FOLDER_DIGITS] / key.sha256

    def _make_room(self, size: int) -> bool:
        """Evict the least recently used files until ``size`` more bytes fit; False if they never can."""
        if size > self._budget:
            return False
        with self._lock:
            if self._bytes is None or self._bytes + size > self._budget:
                entries = list(_entries(self._root))
                self._bytes = sum(entry.size for entry in entries)
                target = min(self._budget - size, int(FULL_SHARE * self._budget))
                if self._bytes + size > self._budget:
                    # Not a file that another process is writing now: it would never appear.
                    finished = (entry for entry in entries if not is_temporary(os.path.basename(entry.path)))
                    self._evict(sorted(finished), target)
            self._bytes += size
        return True

    def _evict(self, entries: list[_Entry], target: int) -> None:
        assert self._bytes is not None
        before = self._bytes
        for entry in entries:
            if self._bytes <= target:
                break
            with suppress(OSError):
                remove_file(Path(entry.path))
            self._bytes -= entry.size
        LOG.info("%s: evicted %d bytes, least recently used first", self._root, before - self._bytes)


def cache_size(layout: Layout) -> tuple[int, int]:
    """Return the number of files in the cache of an index, and their bytes."""
    sizes = [entry.size for entry in _entries(layout.cache)]
    return len(sizes), sum(sizes)


def _entries(root: Path) -> Iterator[_Entry]:
    """Yield every file of the cache; remove temporary files of killed processes."""
    for path, status in files_below(root):
        if is_abandoned(os.path.basename(path), status.st_mtime):
            with suppress(OSError):  # another process may have removed it
                remove_file(Path(path))
        else:
            yield _Entry(status.st_mtime_ns, path, status.st_size)


def _encode(key: CacheKey, arrays: Arrays) -> bytes:
    """Return a file's bytes: a line of JSON, the arrays one after the other, and a CRC-32C of both."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = {
        "format": _HEADER,
        "mode": key.mode,
        "digest": key.digest,
        "sha256": key.sha256,
        "arrays": {name: {"dtype": array.dtype.str, "shape": array.shape} for name, array in whole.items()},
    }
    body = json.dumps(header).encode() + b"\n" + b"".join(array.tobytes() for array in whole.values())
    return body + int(google_crc32c.value(body)).to_bytes(_CRC_BYTES, "little")


def _decode(data: bytes, key: CacheKey) -> dict[str, NDArray[Any]]:
    """Decode the bytes of :func:`_encode`; ValueError, KeyError or TypeError for any others."""
    body, checksum = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    if int(google_crc32c.value(body)) != int.from_bytes(checksum, "little"):
        raise ValueError("the checksum does not match")
    line, _, rest = body.partition(b"\n")
    header = mapping(parse_json(line), "the first line")
    if [header[name] for name in ("format", "mode", "digest", "sha256")] != [_HEADER, key.mode, key.digest, key.sha256]:
        raise ValueError("it is of something else")
    found: dict[str, NDArray[Any]] = {}
    offset = 0
    for name, about in mapping(header["arrays"], "arrays").items():
        if not _DTYPE.fullmatch(about["dtype"]):
            raise ValueError(f"{name} holds no plain numbers")
        dtype = np.dtype(about["dtype"])
        shape = [whole_number(size, "a shape", 1, len(rest)) for size in sequence(about["shape"], "a shape")]
        count = math.prod(shape)
        if count * dtype.itemsize > len(rest) - offset:
            raise ValueError("it ends early")
        found[name] = np.frombuffer(rest, dtype, count, offset).reshape(shape)
        offset += count * dtype.itemsize
    return found
