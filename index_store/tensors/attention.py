"""Write and read the tensor cache: a Zarr v3 group of the arrays that the codec names, ``[rows, ...]`` each.

One image is one uncompressed inner chunk with its CRC-32C; a shard holds many. Any Zarr v3 library can read that, and
zarr-python writes what describes the arrays. Shards are written and read here, since an uncompressed chunk is a byte
range of its shard: a tenth of the time, no row is left out because it is all zeros, and a missing shard can never be
taken for zeros.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from index_store.codecs import DEFAULT_CODEC, Codec, find_codec
from index_store.errors import DiffSimError, IndexIncompatibleError
from index_store.files import corrupt, reading, writing
from index_store.generation import AttentionRecord
from index_store.tensors.background_writer import BackgroundWriter
from index_store.tensors.shards import Shard, open_shard, shards_at_once

Tensors = Mapping[str, NDArray[Any]]
"""The codec's arrays by name, ``[rows, ...]`` each: for qkv-float16 ``[rows, branches, heads, tokens, head_dim]``."""

SHARD_BYTES = 16 << 20  # an array's shard, at most; nine fill up in a build of three modes while eight are written
SHARD_ROWS = 256
TASKS_A_THREAD = 4
_CRC_BYTES = 4
_ENTRY = np.dtype([("offset", "<u8"), ("size", "<u8")])


class AttentionWriter:
    """Append rows of one mode to a new group; whole shards reach the disk as they fill, the rest at :meth:`close`.

    Shards are put together, written and flushed in threads of their own (:class:`BackgroundWriter`).
    """

    def __init__(
        self,
        path: Path,
        row_shapes: Mapping[str, tuple[int, ...]],
        codec: str = DEFAULT_CODEC,
        files: BackgroundWriter | None = None,
    ) -> None:
        """Create the group at ``path``.

        Args:
            path: a folder that is not there yet.
            row_shapes: the shape of one row of each array of ``codec``.
            codec: a name in :data:`index_store.codecs.CODECS`.
            files: shared with other writers, so that they bound each other; by default its own.
        """
        self._codec = find_codec(codec)
        dtypes = {array.name: np.dtype(array.dtype) for array in self._codec.arrays}
        row_bytes = max(int(np.prod(row_shapes[name])) * dtype.itemsize for name, dtype in dtypes.items())
        shard_rows = max(1, min(SHARD_ROWS, SHARD_BYTES // row_bytes))
        self.record = AttentionRecord({name: tuple(row_shapes[name]) for name in dtypes}, shard_rows, codec)
        self.rows = 0
        self._firsts: dict[int, dict[str, int]] = {}
        self._path, self._files = path, files or BackgroundWriter()
        self._waiting: dict[str, list[NDArray[Any]]] = {name: [] for name in dtypes}
        self._arrays = self._create()

    def _create(self) -> dict[str, object]:
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
        """Append rows that the codec encoded, which made sure that all their numbers are finite.

        The arrays must not be changed afterwards.

        Raises:
            ValueError: another shape or dtype than the group's.
            DiffSimError: rows that were appended before could not be written.
        """
        count = len(next(iter(tensors.values())))
        for name, waiting in self._waiting.items():
            rows, dtype = tensors[name], self._codec.dtype_of(name)
            expected = (count, *self.record.row_shapes[name])
            if rows.shape != expected or rows.dtype != dtype:
                raise ValueError(f"{name}: {dtype} of shape {expected} expected, got {rows.dtype} of {rows.shape}")
            waiting.extend(rows)
        while self._count() >= self.record.shard_rows:
            self._flush(self.record.shard_rows)

    def _count(self) -> int:
        return len(next(iter(self._waiting.values())))

    def close(self) -> AttentionRecord:
        """Write what waits, wait until all is written and flushed, and return the record for the generation.

        Where this was interrupted, it can be called again.
        """
        import zarr

        if self._count():
            self._flush(self._count())
        self._files.finish()
        with writing(self._path):
            for name, array in self._arrays.items():
                assert isinstance(array, zarr.Array)
                array.resize((self.rows, *self.record.row_shapes[name]))
        return self.record

    @property
    def firsts(self) -> list[dict[str, int]]:
        """The :func:`row_checksum` of each shard's first row, by array: what tells one shard from another."""
        return [self._firsts[number] for number in sorted(self._firsts)]

    def _flush(self, count: int) -> None:
        number = self.rows // self.record.shard_rows
        for name, rows in self._waiting.items():
            path = Path(_shard_path(self._path, name, number, self.record))
            self._files.write(path, partial(_shard_bytes, rows[:count], self.record.shard_rows))
        self._firsts[number] = {name: row_checksum(rows[0]) for name, rows in self._waiting.items()}
        # Only now, so that a flush that was interrupted can be done again: twice the same bytes do no harm.
        self.rows += count
        self._waiting = {name: rows[count:] for name, rows in self._waiting.items()}


def row_checksum(row: NDArray[Any]) -> int:
    """Return the CRC-32C of one row of an array, as it is stored with it."""
    return int(google_crc32c.value(row.tobytes()))


@dataclass(frozen=True)
class RowLocation:
    """Where a row lies: its group, the group's record, and its number there."""

    group: Path
    record: AttentionRecord
    row: int

    @property
    def root(self) -> Path:
        """The index's folder."""
        return self.group.parents[2]


def read_rows(places: Iterable[RowLocation]) -> dict[str, NDArray[Any]]:
    """Read rows, in the order given, into the codec's arrays ``[rows, ...]``, as they are stored.

    Raises:
        IndexCorruptError: a shard is missing, truncated, or a row's checksum does not match.
        IndexIncompatibleError: a codec that this version does not know.
        ValueError: no place was given, or their shapes or codecs differ.
    """
    wanted = list(places)
    records = {id(place.record): place.record for place in wanted}  # few: rows of a segment share one
    kinds = [(record.codec, record.row_shapes) for record in records.values()]
    if not wanted or any(kind != kinds[0] for kind in kinds):
        raise ValueError("places of rows of one shape and codec are needed, at least one")
    codec, shapes = stored_codec(wanted[0]), wanted[0].record.row_shapes
    result = {a.name: np.empty((len(wanted), *shapes[a.name]), a.dtype) for a in codec.arrays}
    shards = _by_shard(wanted, result)
    at_once = shards_at_once(wanted[0].root)
    # A few tasks a thread: one a shard would cost more than reading a row of a small model.
    tasks = min(len(shards), TASKS_A_THREAD * at_once)
    with ThreadPoolExecutor(at_once) as pool:
        for _ in pool.map(_read_shards, (shards[number::tasks] for number in range(tasks))):
            pass
    return result


def stored_codec(place: RowLocation) -> Codec:
    """Return the codec that a row was written with; IndexIncompatibleError where this version does not know it."""
    try:
        return find_codec(place.record.codec)
    except DiffSimError as error:
        raise IndexIncompatibleError(f"{place.group} can't be read: {error}; update diffsim-retrieval") from error


@dataclass(frozen=True)
class _ShardRows:
    """The rows wanted of one shard, and where they go."""

    path: str
    root: Path
    shard_rows: int
    target: NDArray[Any]
    positions: Sequence[int]  # in the target
    rows: Sequence[int]  # of the group


def _by_shard(places: Sequence[RowLocation], targets: Mapping[str, NDArray[Any]]) -> list[_ShardRows]:
    positions: dict[tuple[Path, int], list[int]] = {}
    for position, place in enumerate(places):
        positions.setdefault((place.group, place.row // place.record.shard_rows), []).append(position)
    shards = []
    for (group, number), here in positions.items():
        record, root, rows = places[here[0]].record, places[here[0]].root, [places[position].row for position in here]
        for name, target in targets.items():
            path = _shard_path(group, name, number, record)
            shards.append(_ShardRows(path, root, record.shard_rows, target, here, rows))
    return shards


def _shard_path(group: Path, name: str, number: int, record: AttentionRecord) -> str:
    return f"{group}/{name}/c/{number}" + "/0" * len(record.row_shapes[name])


def _shard_bytes(rows: Sequence[NDArray[Any]], shard_rows: int) -> memoryview:
    """Return a shard of ``rows``: each with its checksum, one after the other, and the index behind them."""
    size = rows[0].nbytes
    end = len(rows) * (size + _CRC_BYTES)
    shard = np.empty(end + shard_rows * _ENTRY.itemsize + _CRC_BYTES, np.uint8)
    body = shard[:end].reshape(len(rows), -1)
    for into, row in zip(body, rows, strict=True):
        into[:size] = np.ascontiguousarray(row).reshape(-1).view(np.uint8)
        into[size:] = np.frombuffer(_crc_of(into[:size]), np.uint8)
    entries = np.full(shard_rows, np.iinfo("<u8").max, _ENTRY)  # of rows that there are not
    entries["offset"][: len(rows)] = np.arange(len(rows)) * body.shape[1]
    entries["size"][: len(rows)] = body.shape[1]
    index = entries.tobytes()
    shard[end:] = np.frombuffer(index + _crc_of(index), np.uint8)
    return shard.data


def _read_shards(shards: Iterable[_ShardRows]) -> None:
    for shard in shards:
        _read_shard(shard)


def _read_shard(wanted: _ShardRows) -> None:
    """Read the wanted rows of one shard: its index from the end of the shard, then a byte range a row."""
    with reading(wanted.path):
        shard = open_shard(wanted.path, wanted.root)
    with shard, reading(shard.name):
        entries, end = _shard_index(shard, wanted.shard_rows)
        # Into the very place where the rows are wanted: copies cost as much as the reading.
        rows = [wanted.target[position].reshape(-1).view(np.uint8) for position in wanted.positions]
        size = rows[0].nbytes + _CRC_BYTES
        found: list[tuple[int, int]] = entries[[row % wanted.shard_rows for row in wanted.rows]].tolist()
        if any(stored != size or offset + size > end for offset, stored in found):
            raise corrupt(shard.name, "lacks a row, or holds one of another size")
        checksums = np.empty((len(rows), _CRC_BYTES), np.uint8)
        buffers = list(zip(rows, checksums, strict=True))
        counts = shard.fill([offset for offset, _ in found], buffers)
        for count, (row, checksum) in zip(counts, buffers, strict=True):
            if count != size or _crc_of(row) != checksum.tobytes():
                raise corrupt(shard.name, "holds a row whose checksum does not match")


def _shard_index(shard: Shard, shard_rows: int) -> tuple[NDArray[np.void], int]:
    """Return the shard's index and where it begins, that is where the rows end."""
    length = shard_rows * _ENTRY.itemsize + _CRC_BYTES
    data, start = shard.tail(length)
    if len(data) != length or _crc_of(data[:-_CRC_BYTES]) != data[-_CRC_BYTES:]:
        raise corrupt(shard.name, "is truncated or its index is damaged")
    return np.frombuffer(data[:-_CRC_BYTES], _ENTRY), start


def _crc_of(data: bytes | NDArray[np.uint8]) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(_CRC_BYTES, "little")
