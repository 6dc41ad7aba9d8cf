"""Open shards of tensors: files, or objects of a store where a mirror does not hold the file."""

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from index_store.files import open_descriptor
from index_store.layout import Layout
from index_store.remote.mirror import TRANSFERS, find_mirror
from index_store.remote.object_store import ObjectStore

FILES_AT_ONCE = 4
REMEMBERED_TAILS = 4096
Buffers = Sequence[NDArray[np.uint8]]
"""Arrays that the bytes of a range go into, one after the other."""


class Shard(Protocol):
    """An opened shard; ``name`` is its path or URL."""

    name: str

    def tail(self, length: int) -> tuple[bytes, int]:
        """Return the last ``length`` bytes, or all if the shard is shorter, and their offset."""

    def fill(self, offsets: Sequence[int], buffers: Sequence[Buffers]) -> Iterator[int]:
        """Read into each of ``buffers`` from its offset; yield for each how many bytes there were."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _FileShard:
    def __init__(self, path: str) -> None:
        self.name = path
        self._descriptor = open_descriptor(path)

    def tail(self, length: int) -> tuple[bytes, int]:
        start = max(0, os.fstat(self._descriptor).st_size - length)
        return os.pread(self._descriptor, length, start), start

    def fill(self, offsets: Sequence[int], buffers: Sequence[Buffers]) -> Iterator[int]:
        for offset, into in zip(offsets, buffers, strict=True):
            arrays: list[Any] = list(into)  # buffers, though numpy's types do not say so
            yield os.preadv(self._descriptor, arrays, offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


class _RemoteShard:
    def __init__(self, shards: "MirrorShards", key: str) -> None:
        self.name = shards.store.where(key)
        self._shards, self._key = shards, key

    def tail(self, length: int) -> tuple[bytes, int]:
        return self._shards.tail(self._key, length)

    def fill(self, offsets: Sequence[int], buffers: Sequence[Buffers]) -> Iterator[int]:
        lengths = [sum(buffer.nbytes for buffer in into) for into in buffers]
        found = self._shards.store.ranges(self._key, list(zip(offsets, lengths, strict=True)))
        for data, length, into in zip(found, lengths, buffers, strict=True):
            if len(data) == length:
                parts = np.split(np.frombuffer(data, np.uint8), np.cumsum([buffer.nbytes for buffer in into])[:-1])
                for buffer, part in zip(into, parts, strict=True):
                    buffer[...] = part
            yield len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Shards(Protocol):
    """Opens the shards of one index; safe in many threads."""

    at_once: int
    """How many shards to read at the same time."""

    def open(self, path: str) -> Shard:
        """Open the shard that lies, or would lie, at ``path``; FileNotFoundError if it is missing."""


class LocalShards:
    """The shards of an index in a folder."""

    at_once = FILES_AT_ONCE

    def open(self, path: str) -> Shard:
        """Open a shard; no symbolic link inside the index is followed."""
        return _FileShard(path)


class MirrorShards:
    """The shards of an index in an object store; segments that are not committed yet are still local files.

    Remembers the ends of shards, which hold their indexes: an object never changes, and a damaged end does not match
    its checksum.
    """

    at_once = TRANSFERS

    def __init__(self, root: Path, store: ObjectStore) -> None:
        """Take the mirror's folder and the store that it mirrors."""
        self.store = store
        self.tail = lru_cache(maxsize=REMEMBERED_TAILS)(store.tail)
        self._root = root

    def open(self, path: str) -> Shard:
        """Open a shard; nothing is requested from the store before it is read."""
        try:
            return _FileShard(path)
        except FileNotFoundError:
            return _RemoteShard(self, Path(path).relative_to(self._root).as_posix())


def find_shards(layout: Layout) -> Shards:
    """Return what opens the shards of the index at ``layout``, a folder's own or a mirror's.

    Raises:
        RemoteStoreError: ``layout`` is a mirror, and its store can't be opened.
    """
    mirror = find_mirror(layout)
    return LocalShards() if mirror is None else MirrorShards(layout.root, mirror.store)
