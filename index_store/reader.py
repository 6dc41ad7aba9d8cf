"""Read one generation of an index: the catalogue, the vectors and the tensors of its live items."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index_store.attention import RowPlace, read_rows
from index_store.catalog import ITEM_SCHEMA, REJECT_SCHEMA, Item, Reject, items_of, read_ids, read_table, rejects_of
from index_store.coarse import normalised, read_vectors
from index_store.durable import check_file, corrupt
from index_store.layout import Layout
from index_store.manifest import Generation, SegmentRecord, read_current


@dataclass(frozen=True)
class _Places:
    """Where the live items' data of one mode or encoder lie, by row; int64 ``[live items]`` both."""

    segment: NDArray[np.int64]  # its number in the generation; -1: the item lacks these data
    row: NDArray[np.int64]  # among the segment's data

    def by_segment(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the number of each segment that holds any, with the reader's rows that it holds."""
        order = np.argsort(self.segment, kind="stable")
        numbers, starts = np.unique(self.segment[order], return_index=True)
        ends = [*starts[1:].tolist(), len(order)]
        for number, start, end in zip(numbers.tolist(), starts.tolist(), ends, strict=False):
            if number >= 0:
                yield number, order[start:end]


class IndexReader:
    """A generation, opened. It never changes, whatever writers do meanwhile; safe to use from many threads.

    Live items are numbered by ``row``, 0 to ``len(reader) - 1``, in the order of their ids.
    """

    def __init__(self, root: Path, generation: Generation | None = None) -> None:
        """Open ``generation``, or the current one.

        Raises:
            IndexCorruptError: a file is missing or damaged.
            IndexIncompatibleError: written by a newer version of this software.
        """
        self.layout = Layout(root)
        self.generation = generation or read_current(self.layout)
        tables = [self._table(segment, "items") for segment in self.generation.segments]
        self._live = [
            ~np.isin(table["id"].to_numpy(), np.array(self.generation.tombstones, np.int64)) for table in tables
        ]
        kept = [table.filter(pa.array(live)) for table, live in zip(tables, self._live, strict=True)]
        self._catalog = self._with_moves(pa.concat_tables([ITEM_SCHEMA.empty_table(), *kept]))
        numbers = [np.full(int(live.sum()), number) for number, live in enumerate(self._live)]
        self._segment_of = np.concatenate(numbers) if numbers else np.empty(0, np.int64)
        rows = [np.flatnonzero(live) for live in self._live]
        self._row_in_segment = np.concatenate(rows) if rows else np.empty(0, np.int64)
        self._places: dict[tuple[str, str], _Places] = {}

    def _with_moves(self, catalog: pa.Table) -> pa.Table:
        """Replace the rows of items that were given new ones since, the newest last."""
        moves = [self._table(segment, "moved") for segment in self.generation.segments if segment.moved]
        moved = pa.concat_tables([ITEM_SCHEMA.empty_table(), *moves])
        ids, targets = catalog["id"].to_numpy(), moved["id"].to_numpy()
        chosen = np.arange(len(catalog))
        if len(ids) and len(targets):
            rows = np.minimum(np.searchsorted(ids, targets), len(ids) - 1)
            hit = ids[rows] == targets  # a moved item may have been removed since
            chosen[rows[hit]] = len(catalog) + np.flatnonzero(hit)
        return pa.concat_tables([catalog, moved]).take(pa.array(chosen))

    def _table(self, segment: SegmentRecord, kind: str) -> pa.Table:
        if segment.filled and kind != "moved":
            return (ITEM_SCHEMA if kind == "items" else REJECT_SCHEMA).empty_table()
        path, schema, rows = {
            "items": (self.layout.items(segment.name), ITEM_SCHEMA, segment.rows),
            "rejects": (self.layout.rejects(segment.name), REJECT_SCHEMA, segment.rejects),
            "moved": (self.layout.moved(segment.name), ITEM_SCHEMA, segment.moved),
        }[kind]
        check_file(path, segment.files[path.name])
        table = read_table(path, schema)
        if len(table) != rows:
            raise corrupt(path, f"holds {len(table)} rows instead of {rows}")
        return table

    def __len__(self) -> int:
        return len(self._catalog)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """The live items' ids, by row."""
        ids: NDArray[np.int64] = self._catalog["id"].to_numpy()
        return ids

    def items(self, rows: Sequence[int] | NDArray[np.int64] | None = None) -> list[Item]:
        """Return the items of ``rows``, in that order; all of them when none is given."""
        table = self._catalog if rows is None else self._catalog.take(pa.array(np.asarray(rows, np.int64)))
        return items_of(table)

    def find(self, column: str, value: str | int) -> list[int]:
        """Return the rows whose ``column`` equals ``value``."""
        matches = pc.equal(self._catalog[column], value)
        return [int(row) for row in np.flatnonzero(matches.to_numpy(zero_copy_only=False))]

    def find_suffix(self, name: str) -> list[int]:
        """Return the rows whose path ends in ``/name``."""
        matches = pc.ends_with(self._catalog["uri"], "/" + name.lstrip("/"))
        return [int(row) for row in np.flatnonzero(matches.to_numpy(zero_copy_only=False))]

    def rejects(self) -> list[Reject]:
        """Return the images that could not be used, the newest word on each; those indexed since are left out."""
        found = rejects_of(self._table(segment, "rejects") for segment in self.generation.segments)
        indexed = set(self._catalog["uri"].to_pylist())
        return [reject for reject in found if reject.uri not in indexed]

    def has_tensors(self, mode: str) -> NDArray[np.bool_]:
        """Say of every row whether its tensors of ``mode`` are stored, bool ``[len(self)]``."""
        held: NDArray[np.bool_] = self._tensor_places(mode).segment >= 0
        return held

    def has_vector(self, encoder: str) -> NDArray[np.bool_]:
        """Say of every row whether its vector of ``encoder`` is stored, bool ``[len(self)]``."""
        held: NDArray[np.bool_] = self._vector_places(encoder).segment >= 0
        return held

    def vectors(self, encoder: str) -> NDArray[np.float32]:
        """Return the live items' vectors of ``encoder``, float32 ``[len(self), dim]``.

        Rows are of norm 1; those of items that lack one (:meth:`has_vector`) are zeros.
        """
        return normalised(self.stored_vectors(encoder))

    def stored_vectors(self, encoder: str) -> NDArray[np.float16]:
        """Return the vectors as they are on disk, float16 ``[len(self), dim]``, by row; zeros where one is lacking."""
        result = np.zeros((len(self), 0), np.float16)
        places = self._vector_places(encoder)
        for number, rows in places.by_segment():
            segment = self.generation.segments[number]
            path = self.layout.vectors(segment.name, encoder)
            check_file(path, segment.files[self._vector_file(segment, encoder)])
            stored = read_vectors(path, segment.data_rows)
            if not result.shape[1]:
                result = np.zeros((len(self), stored.shape[1]), np.float16)
            result[rows] = stored[places.row[rows]]
        return result

    def attention(self, mode: str, rows: Iterable[int]) -> dict[str, NDArray[np.float16]]:
        """Return q, k and v of ``rows`` in that order; see :func:`index_store.attention.read_rows`.

        Raises:
            ValueError: a row has none; see :meth:`has_tensors`.
        """
        return read_rows(self._place(mode, row) for row in rows)

    def _place(self, mode: str, row: int) -> RowPlace:
        places = self._tensor_places(mode)
        number = int(places.segment[row])
        if number < 0:
            raise ValueError(f"item {self.ids[row]} has no tensors of mode {mode}")
        segment = self.generation.segments[number]
        return RowPlace(self.layout.attention(mode, segment.name), segment.attention[mode], int(places.row[row]))

    def _tensor_places(self, mode: str) -> _Places:
        return self._places_of(("mode", mode), lambda segment: mode in segment.attention)

    def _vector_places(self, encoder: str) -> _Places:
        def holds(segment: SegmentRecord) -> bool:
            return self._vector_file(segment, encoder) in segment.files

        return self._places_of(("encoder", encoder), holds)

    def _vector_file(self, segment: SegmentRecord, encoder: str) -> str:
        return self.layout.vectors(segment.name, encoder).relative_to(self.layout.segment(segment.name)).as_posix()

    def _places_of(self, key: tuple[str, str], holds: Callable[[SegmentRecord], bool]) -> _Places:
        """Find what ``holds`` says that segments hold; remembered by ``key``."""
        if key not in self._places:
            segments = self.generation.segments
            held = np.array([holds(segment) for segment in segments], bool)
            own = held[self._segment_of] if len(self) else np.empty(0, bool)
            places = _Places(np.where(own, self._segment_of, -1), np.where(own, self._row_in_segment, 0))
            for number, segment in enumerate(segments):
                if segment.filled and held[number] and len(self):
                    ids = self._filled_ids(segment)
                    rows = np.minimum(np.searchsorted(self.ids, ids), len(self) - 1)
                    hit = self.ids[rows] == ids  # an item may have been removed since
                    places.segment[rows[hit]], places.row[rows[hit]] = number, np.flatnonzero(hit)
            self._places[key] = places
        return self._places[key]

    def _filled_ids(self, segment: SegmentRecord) -> NDArray[np.int64]:
        path = self.layout.filled(segment.name)
        check_file(path, segment.files[path.name])
        return read_ids(path, segment.filled)

    def bytes_on_disk(self) -> dict[str, int]:
        """Return bytes by kind: ``catalog and vectors`` together, and each mode's tensors."""
        trees = {"catalog and vectors": self.layout.root / "items"}
        trees |= {mode: self.layout.root / "attention" / mode for mode in self.generation.modes}
        return {name: sum(map(_size, tree.rglob("*"))) for name, tree in trees.items()}


def _size(path: Path) -> int:
    """Return a file's bytes; 0 for a folder, and for what a writer has just cleared away."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
