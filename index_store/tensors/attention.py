"""Write and read attention tensors: a Zarr v3 group of the arrays that the codec names, ``[rows, ...]`` each.

One image is one inner chunk with its CRC-32C, compressed where that pays; a shard holds many. Any Zarr v3 library can
read the group, and zarr-python writes its metadata. This module writes and reads the shards itself, as byte ranges:
that takes a tenth of the time. It also stores rows of zeros, which zarr-python leaves out, so that a lost row is never
taken for zeros.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from index_store.codecs import DEFAULT_CODEC, Codec, find_codec
from index_store.errors import DiffSimError, IndexIncompatibleError
from index_store.files import corrupt, reading, write_file
from index_store.generation import AttentionRecord
from index_store.tensors.background_writer import BackgroundWriter
from index_store.tensors.compression import LEVEL, decompress, is_worth_it, longest
from index_store.tensors.shard_bytes import CRC_BYTES, ENTRY, compressed_shard, crc_of, plain_shard
from index_store.tensors.shards import LocalShards, Shard, Shards

Tensors = Mapping[str, NDArray[Any]]
"""The codec's arrays by name, ``[rows, ...]`` each: for qkv-float16 ``[rows, branches, heads, tokens, head_dim]``."""

SHARD_BYTES = 16 << 20  # an array's shard, at most; nine fill up in a build of three modes while eight are written
SHARD_ROWS = 256
TASKS_A_THREAD = 4


class AttentionWriter:
    """Append rows of one mode to a new group; full shards are written at once, the last one at :meth:`close`.

    A :class:`BackgroundWriter` assembles, writes and flushes the shards in its own threads.
    """

    def __init__(
        self,
        path: Path,
        row_shapes: Mapping[str, tuple[int, ...]],
        codec: str = DEFAULT_CODEC,
        files: BackgroundWriter | None = None,
    ) -> None:
        """Prepare the group at ``path``; its first file is written with the first shard.

        Args:
            path: a folder that does not exist yet.
            row_shapes: the shape of one row of each array of ``codec``.
            codec: a name in :data:`index_store.codecs.CODECS`.
            files: shared with other writers, so that all of them together bound the memory; by default its own.
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

    def append(self, tensors: Tensors) -> None:
        """Append rows that the codec encoded, and so checked to be finite. Do not change the arrays afterwards.

        Raises:
            ValueError: another shape or dtype than the group's.
            DiffSimError: earlier rows could not be written.
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
        """Write the last shard, wait until all shards are flushed, and return the record for the generation.

        After an interruption it can be called again.
        """
        if self._count():
            self._flush(self._count())
        self._files.finish()
        record = self.record
        shapes = tuple(record.row_shapes.items())
        for name, data in _metadata(self.rows, shapes, record.shard_rows, record.codec, record.compressed):
            write_file(self._path / name, data)
        return self.record

    @property
    def firsts(self) -> list[dict[str, int]]:
        """The :func:`row_checksum` of each shard's first row, by array: they tell shards of one shape apart."""
        return [self._firsts[number] for number in sorted(self._firsts)]

    def _flush(self, count: int) -> None:
        number = self.rows // self.record.shard_rows
        if not number:
            worth = tuple(name for name, rows in self._waiting.items() if is_worth_it(rows[:count]))
            self.record = replace(self.record, compressed=worth)
        for name, rows in self._waiting.items():
            path = Path(_shard_path(self._path, name, number, self.record))
            make = compressed_shard if name in self.record.compressed else plain_shard
            self._files.write(path, partial(make, rows[:count], self.record.shard_rows))
        self._firsts[number] = {name: row_checksum(rows[0]) for name, rows in self._waiting.items()}
        # Only now, so that an interrupted flush can be repeated: writing the same bytes twice does no harm.
        self.rows += count
        self._waiting = {name: rows[count:] for name, rows in self._waiting.items()}


@lru_cache(maxsize=64)  # the same for every whole segment, and zarr-python takes 3 ms for an array
def _metadata(
    rows: int,
    row_shapes: tuple[tuple[str, tuple[int, ...]], ...],
    shard_rows: int,
    codec: str,
    compressed: tuple[str, ...],
) -> tuple[tuple[str, bytes], ...]:
    """Return the metadata of a group by file; zarr-python makes it in memory, because it would follow links.

    The arguments but ``rows``, of each array, are those of the group's :class:`AttentionRecord`.
    """
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    files = dict[str, Any]()
    group = zarr.create_group(zarr.storage.MemoryStore(files), zarr_format=3, attributes={"codec": codec})
    arrays = {array.name: array for array in find_codec(codec).arrays}
    for name, shape in row_shapes:
        group.create_array(
            name,
            shape=(rows, *shape),
            chunks=(1, *shape),
            shards=(shard_rows, *shape),
            dtype=np.dtype(arrays[name].dtype),
            compressors=[*([ZstdCodec(level=LEVEL)] if name in compressed else ()), Crc32cCodec()],
            dimension_names=("rows", *arrays[name].axes),
        )
    return tuple((name, buffer.to_bytes()) for name, buffer in files.items())


def row_checksum(row: NDArray[Any]) -> int:
    """Return the CRC-32C of one row of an array before compression."""
    return int(google_crc32c.value(row.tobytes()))


@dataclass(frozen=True)
class StoredRow:
    """The place of one item's tensors: a group, the group's record, and the row in the group."""

    group: Path
    record: AttentionRecord
    row: int


def read_rows(wanted: Iterable[StoredRow], shards: Shards | None = None) -> dict[str, NDArray[Any]]:
    """Read rows, in the order given, into the codec's arrays ``[rows, ...]``, as they are stored.

    Args:
        wanted: rows of one shape and codec, at least one; duplicates are fine.
        shards: opens the shards; by default files.

    Raises:
        IndexCorruptError: a shard is missing or truncated, or a row's checksum does not match.
        IndexIncompatibleError: a codec that this version does not know.
        ValueError: no row is wanted, or shapes or codecs differ.
    """
    rows = list(wanted)
    records = {id(row.record): row.record for row in rows}  # only a few: rows of a segment share one
    kinds = [(record.codec, record.row_shapes) for record in records.values()]
    if not rows or any(kind != kinds[0] for kind in kinds):
        raise ValueError("at least one row is needed, and all rows must be of one shape and codec")
    shards = shards or LocalShards()
    codec, shapes = _codec_of(rows[0]), rows[0].record.row_shapes
    result = {a.name: np.empty((len(rows), *shapes[a.name]), a.dtype) for a in codec.arrays}
    reads = _by_shard(rows, result)
    # A few tasks a thread: one a shard would cost more than reading a row of a small model.
    tasks = min(len(reads), TASKS_A_THREAD * shards.at_once)
    with ThreadPoolExecutor(shards.at_once) as pool:
        for _ in pool.map(partial(_read_shards, shards), (reads[number::tasks] for number in range(tasks))):
            pass
    return result


def _codec_of(row: StoredRow) -> Codec:
    try:
        return find_codec(row.record.codec)
    except DiffSimError as error:
        raise IndexIncompatibleError(f"{row.group} can't be read: {error}; update diffsim-retrieval") from error


@dataclass(frozen=True)
class _ShardRead:
    """The rows wanted of one shard, and the array that they go into."""

    path: str
    shard_rows: int
    compressed: bool
    target: NDArray[Any]
    positions: Sequence[int]  # in the target
    rows: Sequence[int]  # of the group


def _by_shard(rows: Sequence[StoredRow], targets: Mapping[str, NDArray[Any]]) -> list[_ShardRead]:
    positions: dict[tuple[Path, int], list[int]] = {}
    for position, row in enumerate(rows):
        positions.setdefault((row.group, row.row // row.record.shard_rows), []).append(position)
    reads = []
    for (group, number), here in positions.items():
        record, numbers = rows[here[0]].record, [rows[position].row for position in here]
        for name, target in targets.items():
            path = _shard_path(group, name, number, record)
            reads.append(_ShardRead(path, record.shard_rows, name in record.compressed, target, here, numbers))
    return reads


def _shard_path(group: Path, name: str, number: int, record: AttentionRecord) -> str:
    return f"{group}/{name}/c/{number}" + "/0" * len(record.row_shapes[name])


def _read_shards(shards: Shards, reads: Iterable[_ShardRead]) -> None:
    for wanted in reads:
        _read_shard(shards, wanted)


def _read_shard(shards: Shards, wanted: _ShardRead) -> None:
    """Read the index from the end of the shard, then one byte range per wanted row."""
    with reading(wanted.path):
        shard = shards.open(wanted.path)
    with shard, reading(shard.name):
        entries, end = _shard_index(shard, wanted.shard_rows)
        found: list[tuple[int, int]] = entries[[row % wanted.shard_rows for row in wanted.rows]].tolist()
        rows = [wanted.target[position].reshape(-1).view(np.uint8) for position in wanted.positions]
        size = rows[0].nbytes
        least, most = (1, longest(size)) if wanted.compressed else (size, size)
        if any(not least <= stored - CRC_BYTES <= most or offset + stored > end for offset, stored in found):
            raise corrupt(shard.name, "misses a row, or holds one of another size")
        # Plain rows go straight into the target: copies would cost as much as the reading.
        bodies = [np.empty(stored - CRC_BYTES, np.uint8) for _, stored in found] if wanted.compressed else rows
        checksums = np.empty((len(rows), CRC_BYTES), np.uint8)
        buffers = list(zip(bodies, checksums, strict=True))
        counts = shard.fill([offset for offset, _ in found], buffers)
        for count, (_, stored), (body, checksum), row in zip(counts, found, buffers, rows, strict=True):
            if count != stored or crc_of(body) != checksum.tobytes():
                raise corrupt(shard.name, "holds a row whose checksum does not match")
            if wanted.compressed:
                _unpack(body, row, shard.name)


def _unpack(body: NDArray[np.uint8], row: NDArray[np.uint8], name: str) -> None:
    try:
        decompress(body, row)
    except ValueError as error:
        raise corrupt(name, f"holds a row that can't be read: {error}") from error


def _shard_index(shard: Shard, shard_rows: int) -> tuple[NDArray[np.void], int]:
    """Return the shard's index and its offset, which is also the end of the rows."""
    length = shard_rows * ENTRY.itemsize + CRC_BYTES
    data, start = shard.tail(length)
    if len(data) != length or crc_of(data[:-CRC_BYTES]) != data[-CRC_BYTES:]:
        raise corrupt(shard.name, "is truncated or its index is damaged")
    return np.frombuffer(data[:-CRC_BYTES], ENTRY), start
