"""The catalogue: every indexed image, and every rejected one with the reason; Parquet files with page checksums.

Functions that need ``pyarrow.compute`` import it themselves: a search does without it, and it loads for 60 ms.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index_store.catalog_files.rows import (
    ITEM_SCHEMA,
    REJECT_SCHEMA,
    Item,
    Reject,
    absolute_uri,
    composed,
    read_table,
    rejects_of,
    sources_in,
    uri_of,
    write_table,
)
from index_store.catalog_files.sources import FEW, NO_SOURCE, Source, Sources, merged
from index_store.files import corrupt
from index_store.generation import Generation, SegmentRecord
from index_store.layout import Layout
from index_store.row_locations import RowLocations, is_among

__all__ = ["Catalog", "Item", "Reject", "absolute_uri", "composed", "uri_of"]


class Catalog:
    """The live items of one generation, in ascending order of their ids: item ``row`` is the same everywhere."""

    def __init__(self, layout: Layout, generation: Generation, known: "Catalog | None" = None) -> None:
        """Read every segment's catalogue, except those that ``known``, of another generation, has read.

        Raises:
            IndexCorruptError: a file is missing or damaged.
        """
        self._layout, self._generation, self._segments = layout, generation, generation.segments
        removed = np.sort(np.array(generation.tombstones, np.int64))
        live, kept = list[NDArray[np.bool_]](), [ITEM_SCHEMA.empty_table()]
        for segment in self._segments:  # up to millions of rows: copy none without need
            table = known._items_of(segment) if known else None
            table = self._read(segment, "items") if table is None else table
            live.append(~is_among(table["id"].to_numpy(), removed))
            kept.append(table if live[-1].all() else table.filter(pa.array(live[-1])))
        moved = [self._read(segment, "moved") for segment in self._segments if segment.moved]
        table = pa.concat_tables(kept).combine_chunks()
        if not _is_ascending(table["id"].to_numpy()):
            raise corrupt(layout.generation(generation.number), "names segments that share ids, or out of order")
        self.sources = Sources(_all_sources(generation, [*kept, *moved]), layout.root)
        self._table = self.sources.adopted(_with_moves(table, moved))
        self.own_locations = _locations_of(live)
        self._whole = [bool(mask.all()) for mask in live]
        self._firsts = np.cumsum([0, *(int(mask.sum()) for mask in live)])
        self._as_read = self._table is table  # no row differs from its segment's
        self._metadata = [each.schema.metadata for each in kept[1:]]

    def _items_of(self, segment: SegmentRecord) -> pa.Table | None:
        """Return a segment's rows as its file has them; None unless all of them are here."""
        number = self._numbers.get(segment.name)
        if number is None or self._segments[number] != segment or not (self._whole[number] and self._as_read):
            return None
        rows = self._table.slice(self._firsts[number], self._firsts[number + 1] - self._firsts[number])
        return rows.replace_schema_metadata(self._metadata[number])

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {segment.name: number for number, segment in enumerate(self._segments)}

    def _read(self, segment: SegmentRecord, kind: str) -> pa.Table:
        path, schema, rows = {
            "items": (self._layout.items(segment.name), ITEM_SCHEMA, segment.rows),
            "rejects": (self._layout.rejects(segment.name), REJECT_SCHEMA, segment.rejects),
            "moved": (self._layout.moved(segment.name), ITEM_SCHEMA, segment.moved),
        }[kind]
        if path.name not in segment.files:  # a filled segment, or a repair took the file out
            return schema.empty_table()
        table = read_table(path, schema, segment.files[path.name], rows)
        if kind == "items" and not _is_ascending(table["id"].to_numpy()):
            raise corrupt(path, "holds ids that are negative or not ascending")
        return table

    def __len__(self) -> int:
        return len(self._table)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """The live items' ids, ascending, int64 ``[len(self)]``."""
        ids: NDArray[np.int64] = self._table["id"].to_numpy()
        return ids

    def removed(self) -> "Catalog":
        """Return the removed items whose rows are still in a segment, with the newest row of each.

        Raises:
            IndexCorruptError: a file is missing or damaged.
        """
        if all(self._whole):
            dead: tuple[SegmentRecord, ...] = ()
        else:
            both = zip(self._segments, self._whole, strict=True)
            dead = tuple(segment for segment, is_whole in both if segment.moved or not is_whole)
        return Catalog(self._layout, replace(self._generation, segments=dead, tombstones=tuple(self.ids.tolist())))

    @property
    def source_ids(self) -> NDArray[np.int32]:
        """The source that each item lies below, int32 ``[len(self)]``; NO_SOURCE for an absolute path."""
        ids: NDArray[np.int32] = self._table["source"].to_numpy()
        return ids

    def items(self, rows: Sequence[int] | NDArray[np.int64] | None = None) -> list[Item]:
        """Return the items of ``rows``, in that order; without ``rows``, all of them."""
        table = self._table if rows is None else _taken(self._table, np.asarray(rows, np.int64))
        return [Item(**row) for row in self._with_uris(table).to_pylist()]

    def uris(self, rows: NDArray[np.int64] | None = None) -> list[str]:
        """Return the absolute paths of ``rows``, in that order; without ``rows``, all of them."""
        table = None if rows is None else _taken(self._table, rows)
        uris: list[str] = (self._uris if table is None else self.sources.absolute(table)).to_pylist()
        return uris

    @cached_property
    def _uris(self) -> pa.ChunkedArray:
        return self.sources.absolute(self._table)

    def _with_uris(self, table: pa.Table) -> pa.Table:
        """Return ``table`` with absolute paths in the place of the columns ``source`` and ``path``."""
        place = table.schema.get_field_index("source")
        return table.add_column(place, "uri", self.sources.absolute(table)).drop_columns(["source", "path"])

    def file_states(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the items' file sizes in bytes, and times of modification and change in ns, int64 ``[len(self)]``."""
        size, modified, changed = (self._table[name].to_numpy() for name in ("size", "mtime_ns", "ctime_ns"))
        return size, modified, changed

    def with_content(self, digests: Iterable[str]) -> list[int]:
        """Return the rows whose SHA-256 is among ``digests``."""
        import pyarrow.compute as pc

        return _true_rows(pc.is_in(self._table["sha256"], value_set=pa.array(list(digests), pa.string())))

    def find(self, column: str, value: str | int) -> list[int]:
        """Return the rows whose ``column`` equals ``value``; a ``uri`` may be spelled in another form of Unicode."""
        import pyarrow.compute as pc

        if column == "uri":
            return self._find_name(pc.equal, str(value))
        return _true_rows(pc.equal(self._table[column], value))

    def find_suffix(self, name: str) -> list[int]:
        """Return the rows whose path ends in ``/name``, in any form of Unicode."""
        import pyarrow.compute as pc

        return self._find_name(pc.ends_with, "/" + name.lstrip("/"))

    def _find_name(self, fits: Callable[[pa.ChunkedArray, str], pa.ChunkedArray], name: str) -> list[int]:
        """Return the rows whose path fits as it is, else those that fit in the composed form of Unicode (NFC)."""
        import pyarrow.compute as pc

        rows = _true_rows(fits(self._uris, name))
        if rows or name.isascii():
            return rows
        others = _true_rows(pc.invert(pc.string_is_ascii(self._uris)))
        paths = self._uris.take(pa.array(others, pa.int64())).to_pylist()
        # Arrow 16 decomposes where it is asked to compose.
        shared = pa.chunked_array([pa.array(list(map(composed, paths)), pa.string())])
        return [others[row] for row in _true_rows(fits(shared, composed(name)))]

    def rejects(self) -> list[Reject]:
        """Return the newest reject of each path, except paths that were indexed since."""
        import pyarrow.compute as pc

        tables = [self._read(segment, "rejects") for segment in self._segments if segment.rejects]
        if not tables:
            return []
        table = self.sources.adopted(pa.concat_tables(tables).combine_chunks())
        dropped = pa.array([source.id for source in self.sources.all if source.dropped], pa.int32())
        table = table.filter(pc.invert(pc.is_in(table["source"], value_set=dropped)))
        found = rejects_of(self._with_uris(table).to_pylist())
        rejected = pa.array([reject.uri for reject in found], pa.string())
        indexed = pc.is_in(rejected, value_set=self._uris.combine_chunks()).to_pylist()
        return [reject for reject, is_item in zip(found, indexed, strict=True) if not is_item]

    def export(self, path: Path) -> None:
        """Write the live items as one Parquet file, with absolute paths."""
        write_table(path, self._with_uris(self._table))


def _all_sources(generation: Generation, tables: Sequence[pa.Table]) -> tuple[Source, ...]:
    """Return the sources of ``generation``, and those that only the files of its segments know."""
    ids = {number for table in tables for number in table["source"].to_numpy().tolist()}
    if ids <= {NO_SOURCE, *(source.id for source in generation.sources)}:
        return generation.sources
    return merged(generation.sources, *(sources_in(table) for table in reversed(tables)))


def _with_moves(table: pa.Table, moves: Sequence[pa.Table]) -> pa.Table:
    """Replace the rows of renamed or touched items by their newest ones."""
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


def _taken(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Return ``rows`` of ``table``, in that order; few of them without ``pyarrow.compute``."""
    if 0 < len(rows) <= FEW:
        return pa.concat_tables([table.slice(row, 1) for row in rows.tolist()])
    return table.take(pa.array(rows))


def _is_ascending(ids: NDArray[np.int64]) -> bool:
    return not len(ids) or bool(ids[0] >= 0 and (ids[1:] > ids[:-1]).all())


def _locations_of(live: Sequence[NDArray[np.bool_]]) -> RowLocations:
    """Return the segment and row of each live item from the segments' masks, bool ``[rows]`` each."""
    if not live:
        return RowLocations(np.empty(0, np.int64), np.empty(0, np.int64))
    segments = [np.full(int(mask.sum()), number) for number, mask in enumerate(live)]
    return RowLocations(np.concatenate(segments), np.concatenate([np.flatnonzero(mask) for mask in live]))


def _true_rows(matches: pa.ChunkedArray) -> list[int]:
    return [int(row) for row in np.flatnonzero(matches.to_numpy(zero_copy_only=False))]
