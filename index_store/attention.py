"""Write and read the tensor cache: a Zarr v3 group of the arrays that the codec names, ``[rows, ...]`` each.

One image is one uncompressed inner chunk with its CRC-32C; a shard holds many. zarr-python writes; any Zarr v3
library can read. Reading here takes another way, since an uncompressed chunk is a byte range of its shard: it reads
those bytes directly, several rows at once, checks them, and so can never take a missing shard for zeros.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from index_store.codecs import DEFAULT_CODEC, Codec, find_codec
from index_store.durable import corrupt, reading, writing
from index_store.errors import DiffSimError, IndexIncompatibleError
from index_store.manifest import AttentionRecord
from index_store.shards import Shard, open_shard, shards_at_once

Tensors = Mapping[str, NDArray[Any]]
"""The codec's arrays by name, ``[rows, ...]`` each: for qkv-float16 ``[rows, branches, heads, tokens, head_dim]``."""

SHARD_BYTES = 16 << 20  # an array's shard, at most; nine of them wait in memory in a build of three modes
SHARD_ROWS = 256
_CRC_BYTES = 4
_ENTRY = np.dtype([("offset", "<u8"), ("size", "<u8")])


class AttentionWriter:
    """Append rows of one mode to a new group; whole shards reach the disk as they fill, the rest at :meth:`close`."""

    def __init__(self, path: Path, row_shapes: Mapping[str, tuple[int, ...]], codec: str = DEFAULT_CODEC) -> None:
        """Create the group at ``path``; ``row_shapes`` gives the shape of one row of each array of ``codec``."""
        self._codec = find_codec(codec)
        dtypes = {array.name: np.dtype(array.dtype) for array in self._codec.arrays}
        row_bytes = max(int(np.prod(row_shapes[name])) * dtype.itemsize for name, dtype in dtypes.items())
        shard_rows = max(1, min(SHARD_ROWS, SHARD_BYTES // row_bytes))
        self.record = AttentionRecord({name: tuple(row_shapes[name]) for name in dtypes}, shard_rows, codec)
        self.rows = 0
        self._firsts: dict[int, dict[str, int]] = {}
        self._path = path
        self._waiting: dict[str, list[NDArray[Any]]] = {name: [] for name in dtypes}
        self._arrays = self._create()

    def _create(self) -> dict[str, "object"]:
        import zarr
        from zarr.codecs import Crc32cCodec

        record = self.record
        with writing(self._path):
            group = zarr.create_group(self._path, zarr_format=3, attributes={"codec": record.codec})
            return {
                array.name: group.create_array(
                    array.name,
                    shape=(0, *record.row_shapes[array.name]),
                    chunks=(1, *record.row_shapes[array.name]),
                    shards=(record.shard_rows, *record.row_shapes[array.name]),
                    dtype=np.dtype(array.dtype),
                    compressors=Crc32cCodec(),
                    dimension_names=("rows", *array.axes),
                )
                for array in self._codec.arrays
            }

    def append(self, tensors: Tensors) -> None:
        """Append encoded rows; a number that is none is an error, since a score of it would be none."""
        count = len(next(iter(tensors.values())))
        for name, waiting in self._waiting.items():
            rows, dtype = tensors[name], self._codec.dtype_of(name)
            expected = (count, *self.record.row_shapes[name])
            if rows.shape != expected or rows.dtype != dtype:
                raise ValueError(f"{name}: {dtype} of shape {expected} expected, got {rows.dtype} of {rows.shape}")
            if not np.isfinite(rows).all():
                raise DiffSimError(f"the model's {name} tensors do not fit {dtype.name} (infinite or not a number)")
            waiting.extend(rows)
        while self._count() >= self.record.shard_rows:
            self._flush(self.record.shard_rows)

    def _count(self) -> int:
        return len(next(iter(self._waiting.values())))

    def close(self) -> AttentionRecord:
        """Write what waits and return the record for the generation."""
        if self._count():
            self._flush(self._count())
        return self.record

    @property
    def firsts(self) -> list[dict[str, int]]:
        """The :func:`row_checksum` of each shard's first row, by array: what tells one shard from another."""
        return [self._firsts[number] for number in sorted(self._firsts)]

    def _flush(self, count: int) -> None:
        import zarr

        end = self.rows + count
        for name, array in self._arrays.items():
            assert isinstance(array, zarr.Array)
            with writing(self._path):
                array.resize((end, *self.record.row_shapes[name]))
                array[self.rows : end] = np.stack(self._waiting[name][:count])
        firsts = {name: row_checksum(rows[0]) for name, rows in self._waiting.items()}
        self._firsts[self.rows // self.record.shard_rows] = firsts
        # Only now, so that a flush that was interrupted can be done again.
        self.rows, self._waiting = end, {name: rows[count:] for name, rows in self._waiting.items()}


def row_checksum(row: NDArray[Any]) -> int:
    """Return the CRC-32C of one row of an array, as it is stored with it."""
    return int(google_crc32c.value(row.tobytes()))


@dataclass(frozen=True)
class RowPlace:
    """Where a row lies: its group, the group's record, and its number there."""

    group: Path
    record: AttentionRecord
    row: int

    @property
    def root(self) -> Path:
        """The index's folder."""
        return self.group.parents[2]


def read_rows(places: Iterable[RowPlace]) -> dict[str, NDArray[Any]]:
    """Read rows, in the order given, into the codec's arrays ``[rows, ...]``, as they are stored.

    Raises:
        IndexCorruptError: a shard is missing, truncated, or a row's checksum does not match.
        IndexIncompatibleError: a codec that this version does not know.
        ValueError: no place was given, or their shapes or codecs differ.
    """
    wanted = list(places)
    kinds = [(place.record.codec, place.record.row_shapes) for place in wanted]
    if not wanted or any(kind != kinds[0] for kind in kinds):
        raise ValueError("places of rows of one shape and codec are needed, at least one")
    codec, shapes = stored_codec(wanted[0]), wanted[0].record.row_shapes
    result = {a.name: np.empty((len(wanted), *shapes[a.name]), a.dtype) for a in codec.arrays}
    shards: dict[Path, _ShardRows] = {}
    for position, place in enumerate(wanted):
        for name, target in result.items():
            path = _shard_path(place, name)
            shards.setdefault(path, _ShardRows(path, place.root, place.record.shard_rows, target, [])).rows.append(
                (position, place.row)
            )
    with ThreadPoolExecutor(shards_at_once(wanted[0].root)) as pool:
        for _ in pool.map(_read_shard, shards.values()):
            pass
    return result


def stored_codec(place: RowPlace) -> Codec:
    """Return the codec that a row was written with; IndexIncompatibleError where this version does not know it."""
    try:
        return find_codec(place.record.codec)
    except DiffSimError as error:
        raise IndexIncompatibleError(f"{place.group} can't be read: {error}; update diffsim-retrieval") from error


@dataclass(frozen=True)
class _ShardRows:
    """The rows wanted of one shard, and where they go."""

    path: Path
    root: Path
    shard_rows: int
    target: NDArray[Any]
    rows: list[tuple[int, int]]  # place in the target, row of the group


def _shard_path(place: RowPlace, name: str) -> Path:
    inner = "0/" * len(place.record.row_shapes[name])
    return place.group / name / "c" / f"{place.row // place.record.shard_rows}" / inner


def _read_shard(wanted: _ShardRows) -> None:
    """Read the wanted rows of one shard: its index from the end of the shard, then a byte range a row."""
    with reading(wanted.path):
        shard = open_shard(wanted.path, wanted.root)
    with shard, reading(shard.name):
        entries, end = _shard_index(shard, wanted.shard_rows)
        offsets = [_offset(shard, entries[row % wanted.shard_rows], end, wanted.target[0]) for _, row in wanted.rows]
        # Into the very place where the rows are wanted: copies cost as much as the reading.
        rows = [wanted.target[position].reshape(-1).view(np.uint8) for position, _ in wanted.rows]
        checksums = np.empty((len(rows), _CRC_BYTES), np.uint8)
        for number, count in enumerate(shard.fill(offsets, list(zip(rows, checksums, strict=True)))):
            row, checksum = rows[number], int.from_bytes(checksums[number].tobytes(), "little")
            if count != row.nbytes + _CRC_BYTES or int(google_crc32c.value(row)) != checksum:
                raise corrupt(shard.name, "holds a row whose checksum does not match")


def _shard_index(shard: Shard, shard_rows: int) -> tuple[NDArray[np.void], int]:
    """Return the shard's index and where it begins, that is where the rows end."""
    length = shard_rows * _ENTRY.itemsize + _CRC_BYTES
    data, start = shard.tail(length)
    if len(data) != length or not _crc_matches(data):
        raise corrupt(shard.name, "is truncated or its index is damaged")
    return np.frombuffer(data[:-_CRC_BYTES], _ENTRY), start


def _offset(shard: Shard, entry: np.void, end: int, row: NDArray[Any]) -> int:
    expected = row.nbytes + _CRC_BYTES
    if int(entry["size"]) != expected or int(entry["offset"]) + expected > end:
        raise corrupt(shard.name, "lacks a row, or holds one of another size")
    return int(entry["offset"])


def _crc_matches(data: bytes) -> bool:
    return int(google_crc32c.value(data[:-_CRC_BYTES])) == int.from_bytes(data[-_CRC_BYTES:], "little")
