"""Write and read the Q/K/V cache: a Zarr v3 group of arrays q, k, v ``[rows, branches, heads, tokens, head_dim]``.

One image is one uncompressed inner chunk with its CRC-32C; a shard holds many. zarr-python writes; any Zarr v3
library can read. Reading here takes another way, since an uncompressed chunk is a byte range of its shard: it reads
those bytes directly, several rows at once, checks them, and so can never take a missing shard for zeros.
"""

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from index_store.durable import corrupt, reading, writing
from index_store.errors import DiffSimError
from index_store.manifest import AttentionRecord

Tensors = Mapping[str, NDArray[np.float16]]
"""``q``, ``k`` and ``v``, each ``[rows, branches, heads, tokens, head_dim]``."""

ARRAYS = ("q", "k", "v")
STORED = np.dtype("<f2")
SHARD_BYTES = 16 << 20  # an array's shard, at most; nine of them wait in memory in a build of three modes
SHARD_ROWS = 256
READ_THREADS = 4
_CRC_BYTES = 4
_ENTRY = np.dtype([("offset", "<u8"), ("size", "<u8")])


class AttentionWriter:
    """Append rows of one mode to a new group; whole shards reach the disk as they fill, the rest at :meth:`close`."""

    def __init__(self, path: Path, row_shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Create the group at ``path``; ``row_shapes`` gives each array's ``(branches, heads, tokens, head_dim)``."""
        row_bytes = max(int(np.prod(shape)) for shape in row_shapes.values()) * STORED.itemsize
        shard_rows = max(1, min(SHARD_ROWS, SHARD_BYTES // row_bytes))
        self.record = AttentionRecord({name: tuple(row_shapes[name]) for name in ARRAYS}, shard_rows)
        self.rows = 0
        self._path = path
        self._waiting: dict[str, list[NDArray[np.float16]]] = {name: [] for name in ARRAYS}
        self._arrays = self._create()

    def _create(self) -> dict[str, "object"]:
        import zarr
        from zarr.codecs import Crc32cCodec

        record = self.record
        with writing(self._path):
            group = zarr.create_group(self._path, zarr_format=3, attributes={"codec": record.codec})
            return {
                name: group.create_array(
                    name,
                    shape=(0, *shape),
                    chunks=(1, *shape),
                    shards=(record.shard_rows, *shape),
                    dtype=STORED,
                    compressors=Crc32cCodec(),
                    dimension_names=("rows", "branches", "heads", "tokens", "head_dim"),
                )
                for name, shape in record.row_shapes.items()
            }

    def append(self, tensors: Tensors) -> None:
        """Append rows; values beyond float16's range are an error, since a score of them would be none."""
        count = len(tensors["q"])
        for name in ARRAYS:
            with np.errstate(over="ignore"):  # what overflows is found below
                rows = np.asarray(tensors[name], dtype=STORED)
            expected = (count, *self.record.row_shapes[name])
            if rows.shape != expected:
                raise ValueError(f"{name}: an array of shape {expected} expected, got {rows.shape}")
            if not np.isfinite(rows).all():
                raise DiffSimError(f"the model's {name} tensors do not fit float16 (infinite or not a number)")
            self._waiting[name].extend(rows)
        while len(self._waiting["q"]) >= self.record.shard_rows:
            self._flush(self.record.shard_rows)

    def close(self) -> AttentionRecord:
        """Write what waits and return the record for the generation."""
        if self._waiting["q"]:
            self._flush(len(self._waiting["q"]))
        return self.record

    def _flush(self, count: int) -> None:
        import zarr

        end = self.rows + count
        for name, array in self._arrays.items():
            assert isinstance(array, zarr.Array)
            with writing(self._path):
                array.resize((end, *self.record.row_shapes[name]))
                array[self.rows : end] = np.stack(self._waiting[name][:count])
        # Only now, so that a flush that was interrupted can be done again.
        self.rows, self._waiting = end, {name: rows[count:] for name, rows in self._waiting.items()}


@dataclass(frozen=True)
class RowPlace:
    """Where a row lies: its group, the group's record, and its number there."""

    group: Path
    record: AttentionRecord
    row: int


def read_rows(places: Iterable[RowPlace]) -> dict[str, NDArray[np.float16]]:
    """Read rows, in the order given, into three arrays ``[rows, branches, heads, tokens, head_dim]``.

    Raises:
        IndexCorruptError: a shard is missing, truncated, or a row's checksum does not match.
        ValueError: no place was given, or their shapes differ.
    """
    wanted = list(places)
    if not wanted or any(place.record.row_shapes != wanted[0].record.row_shapes for place in wanted):
        raise ValueError("places of rows of one shape are needed, at least one")
    shapes = wanted[0].record.row_shapes
    result = {name: np.empty((len(wanted), *shapes[name]), STORED) for name in ARRAYS}
    shards: dict[Path, list[tuple[int, RowPlace]]] = {}
    for position, place in enumerate(wanted):
        for name in ARRAYS:
            shards.setdefault(_shard_path(place, name), []).append((position, place))
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for _ in pool.map(_read_shard, shards.items(), repeat(result)):
            pass
    return result


def _shard_path(place: RowPlace, name: str) -> Path:
    return place.group / name / "c" / f"{place.row // place.record.shard_rows}" / "0" / "0" / "0" / "0"


def _read_shard(task: tuple[Path, list[tuple[int, RowPlace]]], result: Mapping[str, NDArray[np.float16]]) -> None:
    """Read the wanted rows of one shard: its index from the end of the file, then a byte range a row."""
    path, rows = task
    record = rows[0][1].record
    name = path.parents[5].name
    with reading(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            entries, end = _shard_index(path, descriptor, record.shard_rows)
            for position, place in rows:
                entry = entries[place.row % record.shard_rows]
                _read_chunk(path, descriptor, entry, end, result[name][position])
        finally:
            os.close(descriptor)


def _shard_index(path: Path, descriptor: int, shard_rows: int) -> tuple[NDArray[np.void], int]:
    """Return the shard's index and where it begins, that is where the rows end."""
    length = shard_rows * _ENTRY.itemsize + _CRC_BYTES
    start = max(0, os.fstat(descriptor).st_size - length)
    data = os.pread(descriptor, length, start)
    if len(data) != length or not _crc_matches(data):
        raise corrupt(path, "is truncated or its index is damaged")
    return np.frombuffer(data[:-_CRC_BYTES], _ENTRY), start


def _read_chunk(path: Path, descriptor: int, entry: np.void, end: int, target: NDArray[np.float16]) -> None:
    expected = target.nbytes + _CRC_BYTES
    if int(entry["size"]) != expected or int(entry["offset"]) + expected > end:
        raise corrupt(path, "lacks a row, or holds one of another size")
    data = os.pread(descriptor, expected, int(entry["offset"]))
    if len(data) != expected or not _crc_matches(data):
        raise corrupt(path, "holds a row whose checksum does not match")
    target[...] = np.frombuffer(data[:-_CRC_BYTES], STORED).reshape(target.shape)


def _crc_matches(data: bytes) -> bool:
    return int(google_crc32c.value(data[:-_CRC_BYTES])) == int.from_bytes(data[-_CRC_BYTES:], "little")
