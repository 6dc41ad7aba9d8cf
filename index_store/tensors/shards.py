"""Byte ranges of a shard: of a file, or of an object where a mirror does not hold the file."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from index_store.layout import Layout
from index_store.remote.mirror import TRANSFERS, find_mirror
from index_store.remote.object_store import ObjectStore, _tail

FILES_AT_ONCE = 4
Buffers = Sequence[NDArray[np.uint8]]
"""Where the bytes of a range go, one array after the other."""


class Shard(Protocol):
    """An opened shard; ``name`` is its path or URL."""

    name: str

    def tail(self, length: int) -> tuple[bytes, int]:
        """Return the last ``length`` bytes, or all there are, and where they begin."""

    def fill(self, offsets: Sequence[int], buffers: Sequence[Buffers]) -> Iterator[int]:
        """Read at each offset into its buffers, one after the other; yield the bytes that there were."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _FileShard:
    def __init__(self, path: str) -> None:
        self.name = path
        self._descriptor = os.open(path, os.O_RDONLY)

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
    def __init__(self, store: ObjectStore, key: str) -> None:
        self.name = store.where(key)
        self._store, self._key = store, key

    def tail(self, length: int) -> tuple[bytes, int]:
        return _tail(self._store, self._key, length)

    def fill(self, offsets: Sequence[int], buffers: Sequence[Buffers]) -> Iterator[int]:
        lengths = [sum(buffer.nbytes for buffer in into) for into in buffers]
        found = self._store.ranges(self._key, list(zip(offsets, lengths, strict=True)))
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


def open_shard(path: str, root: Path) -> Shard:
    """Open the shard at ``path`` in the index at ``root``.

    Raises:
        FileNotFoundError: it is not there, and ``root`` is no mirror.
    """
    try:
        return _FileShard(path)
    except FileNotFoundError:
        mirror = find_mirror(Layout(root))
        if mirror is None:
            raise
        return _RemoteShard(mirror.store, Path(path).relative_to(root).as_posix())


def shards_at_once(root: Path) -> int:
    """Return how many shards are best read at a time."""
    return TRANSFERS if Layout(root).remote.exists() else FILES_AT_ONCE
