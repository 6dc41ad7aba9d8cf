"""Read one generation of an index: the catalogue, the vectors and the tensors of its live items."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index_store.catalog import (
    ITEM_SCHEMA,
    REJECT_SCHEMA,
    Item,
    Reject,
    items_of,
    read_ids,
    read_table,
    rejects_of,
    write_items,
)
from index_store.codecs import DEFAULT_CODEC, find_codec
from index_store.errors import IndexCorruptError
from index_store.files import check_file, corrupt, files_below
from index_store.generation import AttentionRecord, Generation, SegmentRecord, read_current
from index_store.layout import Layout
from index_store.remote.mirror import find_mirror
from index_store.row_locations import RowLocations, is_among, locate_rows
from index_store.tensors.attention import RowLocation, read_rows
from index_store.tensors.projections import read_projection
from index_store.vectors.flat import FlatIndex
from index_store.vectors.ivf import Part, is_due, open_ivf, train
from index_store.vectors.ivf_and_rest import IVFAndRestIndex
from index_store.vectors.storage import normalised, read_vectors


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
        buried = np.sort(np.array(self.generation.tombstones, np.int64))
        self._live: list[NDArray[np.bool_]] = []
        kept = [ITEM_SCHEMA.empty_table()]
        for segment in self.generation.segments:  # a million rows are read here: no copy that need not be
            table = self._table(segment, "items")
            live = ~is_among(table["id"].to_numpy(), buried)
            self._live.append(live)
            kept.append(table if live.all() else table.filter(pa.array(live)))
        self._catalog = self._with_moves(pa.concat_tables(kept).combine_chunks())
        numbers = [np.full(int(live.sum()), number) for number, live in enumerate(self._live)]
        self._segment_of = np.concatenate(numbers) if numbers else np.empty(0, np.int64)
        rows = [np.flatnonzero(live) for live in self._live]
        self._row_in_segment = np.concatenate(rows) if rows else np.empty(0, np.int64)
        self._places: dict[str, RowLocations] = {}
        self._groups: dict[tuple[str, int], tuple[Path, AttentionRecord]] = {}  # by mode and number of the segment

    def _with_moves(self, catalog: pa.Table) -> pa.Table:
        """Replace the rows of items that were given new ones since, the newest last."""
        moves = [self._table(segment, "moved") for segment in self.generation.segments if segment.moved]
        if not moves:
            return catalog
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

    def uris(self, rows: NDArray[np.int64] | None = None) -> list[str]:
        """Return the items' paths, by row; those of ``rows`` in that order, where they are given."""
        uris: list[str] = (self._catalog if rows is None else self._catalog.take(pa.array(rows)))["uri"].to_pylist()
        return uris

    def file_states(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the sizes in bytes of the items' files and their times of change in ns, by row."""
        return self._catalog["size"].to_numpy(), self._catalog["mtime_ns"].to_numpy()

    def export_items(self, path: Path) -> None:
        """Write the catalogue of the live items as one Parquet file."""
        write_items(path, self._catalog)

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
        if not found:
            return []
        rejected = pa.array([reject.uri for reject in found], pa.string())
        indexed = pc.is_in(rejected, value_set=self._catalog["uri"].combine_chunks()).to_pylist()
        return [reject for reject, is_item in zip(found, indexed, strict=True) if not is_item]

    def has_tensors(self, mode: str) -> NDArray[np.bool_]:
        """Say of every row whether its tensors of ``mode`` are stored, bool ``[len(self)]``."""
        return self._tensor_places(mode).held

    def has_vector(self, encoder: str) -> NDArray[np.bool_]:
        """Say of every row whether its vector of ``encoder`` is stored, bool ``[len(self)]``."""
        return self._vector_places(encoder).held

    def vectors(self, encoder: str) -> NDArray[np.float32]:
        """Return the live items' vectors of ``encoder``, float32 ``[len(self), dim]``.

        Rows are of norm 1; those of items that lack one (:meth:`has_vector`) are zeros.
        """
        return normalised(self.stored_vectors(encoder))

    def stored_vectors(self, encoder: str) -> NDArray[np.float16]:
        """Return the vectors as they are on disk, float16 ``[len(self), dim]``, by row; zeros where one is lacking."""
        return self._together(np.arange(len(self)), self.vector_parts(encoder))

    def _together(self, rows: NDArray[np.int64], parts: Iterable[Part], dim: int = 0) -> NDArray[np.float16]:
        """Return the vectors of ``rows``, ascending, that ``parts`` hold; zeros where they don't."""
        result = np.zeros((len(rows), dim), np.float16)
        for _, _, ids, vectors in parts:
            if not result.shape[1]:
                result = np.zeros((len(rows), vectors.shape[1]), np.float16)
            result[np.searchsorted(self.ids[rows], ids)] = vectors
        return result

    def coarse_index(self, encoder: str) -> FlatIndex | IVFAndRestIndex:
        """Return the coarse stage over one encoder: what was trained and is still true, and a scan of the rest."""
        buried = np.array(self.generation.tombstones, np.int64)
        opened = open_ivf(self.layout, encoder, self._vector_checksums(encoder), buried)
        if opened is None:
            return FlatIndex(self.vectors(encoder), self.has_vector(encoder))
        record, trained = opened
        known = np.array([segment.name in record.segments for segment in self.generation.segments], bool)
        places = self._vector_places(encoder)
        rest = np.flatnonzero(~known[places.segment] & places.held)
        vectors = normalised(self._together(rest, self.vector_parts(encoder, record.segments), trained.dim))
        return IVFAndRestIndex(trained, self.ids, places.held, rest, vectors)

    def train_where_due(self, on_train: Callable[[str], None] = lambda encoder: None) -> None:
        """Train the coarse stage of every encoder whose trained index is missing or old, where there are many rows.

        The caller holds the writer's lock.
        """
        for encoder in self.generation.encoders:
            places = self._vector_places(encoder)
            sizes = {self.generation.segments[number].name: len(rows) for number, rows in places.by_segment()}
            if is_due(self.layout, encoder, self._vector_checksums(encoder), sizes):
                on_train(encoder)
                read = partial(self.vector_parts, encoder)
                train(self.layout, encoder, read, int(places.held.sum()), self.generation.number)

    def vector_bytes(self, encoder: str) -> int:
        """Return what a float16 vector for every live item takes, from the files' sizes: a few bytes more at most."""
        name = _vector_file(encoder)
        sizes = [s.files[name].size // s.data_rows for s in self.generation.segments if name in s.files and s.data_rows]
        return len(self) * min(sizes, default=0)

    def _vector_checksums(self, encoder: str) -> dict[str, int]:
        name = _vector_file(encoder)
        return {s.name: s.files[name].crc32c for s in self.generation.segments if name in s.files}

    def vector_parts(self, encoder: str, without: Container[str] = ()) -> Iterator[Part]:
        """Read the live items' vectors of one segment after the other, so that never more of them are in memory."""
        places = self._vector_places(encoder)
        for number, rows in places.by_segment():
            segment = self.generation.segments[number]
            if segment.name not in without:
                path, record = self.layout.vectors(segment.name, encoder), segment.files[_vector_file(encoder)]
                check_file(path, record)
                stored = read_vectors(path, segment.data_rows)
                yield segment.name, record.crc32c, self.ids[rows], stored[places.row[rows]]

    def attention(self, mode: str, rows: Iterable[int]) -> dict[str, NDArray[Any]]:
        """Return the tensors of ``rows`` in that order, as stored; see :func:`index_store.tensors.attention.read_rows`.

        Raises:
            ValueError: a row has none; see :meth:`has_tensors`.
        """
        return read_rows(self._place(mode, row) for row in rows)

    def row_bytes(self, mode: str) -> int:
        """Return the bytes of one row's tensors as stored; 0 where no item has any."""
        for segment in self.generation.segments:
            if mode in segment.attention:
                record = segment.attention[mode]
                codec = find_codec(record.codec)
                shapes = record.row_shapes.items()
                return sum(int(np.prod(shape)) * codec.dtype_of(name).itemsize for name, shape in shapes)
        return 0

    def projection(self, mode: str) -> dict[str, NDArray[Any]]:
        """Return what makes Q, K and V of a mode's stored layer inputs.

        Raises:
            IndexCorruptError: its file is missing or damaged, or was taken out by a repair.
        """
        if mode not in self.generation.projections:
            raise IndexCorruptError(
                f"{self.layout.root} lacks the projection of mode {mode}; bring it back with: diffsim-index build"
            )
        return read_projection(self.layout, self.generation.projections[mode])

    @property
    def codec(self) -> str:
        """The name of the codec that the tensors are stored by."""
        records = (record for segment in self.generation.segments for record in segment.attention.values())
        return next((record.codec for record in records), DEFAULT_CODEC)

    def _place(self, mode: str, row: int) -> RowLocation:
        places = self._tensor_places(mode)
        number = int(places.segment[row])
        if number < 0:
            raise ValueError(f"item {self.ids[row]} has no tensors of mode {mode}")
        if (mode, number) not in self._groups:
            segment = self.generation.segments[number]
            self._groups[mode, number] = self.layout.attention(mode, segment.name), segment.attention[mode]
        return RowLocation(*self._groups[mode, number], int(places.row[row]))

    def _tensor_places(self, mode: str) -> RowLocations:
        return self._places_of(f"mode {mode}", lambda segment: mode in segment.attention)

    def _vector_places(self, encoder: str) -> RowLocations:
        return self._places_of(f"encoder {encoder}", lambda segment: _vector_file(encoder) in segment.files)

    def _places_of(self, key: str, holds: Callable[[SegmentRecord], bool]) -> RowLocations:
        """Find what ``holds`` says that segments hold; remembered by ``key``."""
        if key not in self._places:
            segments = self.generation.segments
            own = RowLocations(self._segment_of, self._row_in_segment)
            held = [holds(segment) for segment in segments]
            self._places[key] = locate_rows(own, self.ids, segments, held, self._filled_ids)
        return self._places[key]

    def _filled_ids(self, number: int) -> NDArray[np.int64]:
        segment = self.generation.segments[number]
        path = self.layout.filled(segment.name)
        check_file(path, segment.files[path.name])
        return read_ids(path, segment.filled)

    def bytes_on_disk(self) -> dict[str, int]:
        """Return bytes by kind: ``catalog and vectors`` together, ``projections``, and each mode's tensors.

        For a mirror, those in the object store.
        """
        trees = {"catalog and vectors": "items", "projections": "projections"}
        trees |= {mode: f"attention/{mode}" for mode in self.generation.modes}
        mirror = find_mirror(self.layout)
        if mirror is not None:
            return {name: sum(entry.size for entry in mirror.store.list(tree)) for name, tree in trees.items()}
        roots = {name: self.layout.root / tree for name, tree in trees.items()}
        return {name: sum(status.st_size for _, status in files_below(root)) for name, root in roots.items()}


def _vector_file(encoder: str) -> str:
    return f"vectors/{encoder}.npy"
