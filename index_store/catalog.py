"""The catalogue: every indexed image, and every rejected one with the reason; Parquet files with page checksums."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index_store.files import check_file, corrupt, reading, writing
from index_store.generation import Generation, SegmentRecord
from index_store.layout import Layout
from index_store.row_locations import RowLocations, is_among


@dataclass(frozen=True)
class Item:
    """One indexed image."""

    id: int
    uri: str  # absolute path
    size: int  # bytes
    mtime_ns: int
    sha256: str  # of the file's bytes
    width: int  # pixels, after the EXIF rotation
    height: int


@dataclass(frozen=True)
class Reject:
    """One image that could not be used; ``reason`` is a stable word, ``detail`` a clause for people."""

    uri: str
    size: int  # bytes; -1: unknown
    mtime_ns: int  # -1: unknown
    reason: str
    detail: str


ITEM_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
REJECT_SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
assert [f.name for f in fields(Item)] == ITEM_SCHEMA.names
assert [f.name for f in fields(Reject)] == REJECT_SCHEMA.names


class Catalog:
    """The live items of one generation, in ascending order of their ids: item ``row`` is the same everywhere."""

    def __init__(self, layout: Layout, generation: Generation) -> None:
        """Read every segment's catalogue.

        Raises:
            IndexCorruptError: a file is missing or damaged.
        """
        self._layout, self._segments = layout, generation.segments
        removed = np.sort(np.array(generation.tombstones, np.int64))
        live, kept = [], [ITEM_SCHEMA.empty_table()]
        for segment in self._segments:  # up to millions of rows: copy none without need
            table = self._read(segment, "items")
            live.append(~is_among(table["id"].to_numpy(), removed))
            kept.append(table if live[-1].all() else table.filter(pa.array(live[-1])))
        self._table = self._with_moves(pa.concat_tables(kept).combine_chunks())
        self.own_locations = _locations_of(live)

    def _with_moves(self, table: pa.Table) -> pa.Table:
        """Replace the rows of renamed or touched items by their newest ones."""
        moves = [self._read(segment, "moved") for segment in self._segments if segment.moved]
        if not moves:
            return table
        moved = pa.concat_tables([ITEM_SCHEMA.empty_table(), *moves])
        ids, targets = table["id"].to_numpy(), moved["id"].to_numpy()
        chosen = np.arange(len(table))
        if len(ids) and len(targets):
            rows = np.minimum(np.searchsorted(ids, targets), len(ids) - 1)
            hit = ids[rows] == targets  # a moved item may have been removed since
            chosen[rows[hit]] = len(table) + np.flatnonzero(hit)
        return pa.concat_tables([table, moved]).take(pa.array(chosen))

    def _read(self, segment: SegmentRecord, kind: str) -> pa.Table:
        path, schema, rows = {
            "items": (self._layout.items(segment.name), ITEM_SCHEMA, segment.rows),
            "rejects": (self._layout.rejects(segment.name), REJECT_SCHEMA, segment.rejects),
            "moved": (self._layout.moved(segment.name), ITEM_SCHEMA, segment.moved),
        }[kind]
        if path.name not in segment.files:  # a filled segment, or a repair took the file out
            return schema.empty_table()
        check_file(path, segment.files[path.name])
        table = read_table(path, schema)
        if len(table) != rows:
            raise corrupt(path, f"holds {len(table)} rows instead of {rows}")
        return table

    def __len__(self) -> int:
        return len(self._table)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """The live items' ids, ascending, int64 ``[len(self)]``."""
        ids: NDArray[np.int64] = self._table["id"].to_numpy()
        return ids

    def items(self, rows: Sequence[int] | NDArray[np.int64] | None = None) -> list[Item]:
        """Return the items of ``rows``, in that order; without ``rows``, all of them."""
        table = self._table if rows is None else self._table.take(pa.array(np.asarray(rows, np.int64)))
        return items_of(table)

    def uris(self, rows: NDArray[np.int64] | None = None) -> list[str]:
        """Return the paths of ``rows``, in that order; without ``rows``, all of them."""
        uris: list[str] = (self._table if rows is None else self._table.take(pa.array(rows)))["uri"].to_pylist()
        return uris

    def file_states(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the items' file sizes in bytes and modification times in ns, int64 ``[len(self)]`` each."""
        return self._table["size"].to_numpy(), self._table["mtime_ns"].to_numpy()

    def find(self, column: str, value: str | int) -> list[int]:
        """Return the rows whose ``column`` equals ``value``."""
        return _true_rows(pc.equal(self._table[column], value))

    def find_suffix(self, name: str) -> list[int]:
        """Return the rows whose path ends in ``/name``."""
        return _true_rows(pc.ends_with(self._table["uri"], "/" + name.lstrip("/")))

    def rejects(self) -> list[Reject]:
        """Return the newest reject of each path, except paths that were indexed since."""
        found = rejects_of(self._read(segment, "rejects") for segment in self._segments)
        if not found:
            return []
        rejected = pa.array([reject.uri for reject in found], pa.string())
        indexed = pc.is_in(rejected, value_set=self._table["uri"].combine_chunks()).to_pylist()
        return [reject for reject, is_item in zip(found, indexed, strict=True) if not is_item]

    def export(self, path: Path) -> None:
        """Write the live items as one Parquet file."""
        _write_table(path, self._table)


def _locations_of(live: Sequence[NDArray[np.bool_]]) -> RowLocations:
    """Return the segment and row of each live item from the segments' masks, bool ``[rows]`` each."""
    if not live:
        return RowLocations(np.empty(0, np.int64), np.empty(0, np.int64))
    segments = [np.full(int(mask.sum()), number) for number, mask in enumerate(live)]
    return RowLocations(np.concatenate(segments), np.concatenate([np.flatnonzero(mask) for mask in live]))


def _true_rows(matches: pa.ChunkedArray) -> list[int]:
    return [int(row) for row in np.flatnonzero(matches.to_numpy(zero_copy_only=False))]


def write_rows(path: Path, rows: Sequence[Item] | Sequence[Reject], schema: pa.Schema) -> None:
    """Write ``rows`` in the given order as one Parquet file."""
    columns = [[getattr(row, name) for row in rows] for name in schema.names]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    _write_table(path, pa.table(arrays, schema=schema))


def _write_table(path: Path, table: pa.Table) -> None:
    with writing(path), path.open("wb") as file:
        pq.write_table(table, file, write_page_checksum=True)


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read one Parquet file of :func:`write_rows`; IndexCorruptError if it is damaged or has other columns."""
    with reading(path):
        data = path.read_bytes()  # by Python: pyarrow reports a refusal like damage, and fails at names without UTF-8
    try:
        # Not read_table, which looks for a data set of many files, and takes four times as long over one. Threads
        # and read-ahead cost more than they bring for so few rows.
        with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False, page_checksum_verification=True) as file:
            table = file.read(use_threads=False)
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise corrupt(path, f"is not a whole Parquet file ({str(error).splitlines()[0]})") from error
    if not table.schema.equals(schema):
        raise corrupt(path, f"has other columns than expected: {table.schema.names}")
    return table


def items_of(table: pa.Table) -> list[Item]:
    """Turn rows of the items table into objects."""
    return [Item(**row) for row in table.to_pylist()]


def rejects_of(tables: Iterable[pa.Table]) -> list[Reject]:
    """Turn rejects tables, oldest first, into objects; the newest row of each path counts."""
    newest: dict[str, Any] = {row["uri"]: row for table in tables for row in table.to_pylist()}
    return [Reject(**row) for row in newest.values()]


def uri_of(path: str | Path) -> str:
    """Return the path as the catalogue holds it; bytes that are not UTF-8 are escaped (such files are rejected)."""
    name = os.fspath(path)
    return name if name.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")
