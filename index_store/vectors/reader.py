"""Read the encoders' vectors of one generation's live items, and open the index that searches them."""

import logging
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from index_store.files import corrupt
from index_store.generation import Generation, SegmentRecord
from index_store.layout import Layout, vectors_file
from index_store.row_locations import RowLocator, is_among
from index_store.vectors.exact import Floats
from index_store.vectors.flat import FlatIndex
from index_store.vectors.ivf import open_ivf
from index_store.vectors.ivf_and_rest import IVFAndRestIndex
from index_store.vectors.mapped import MappedFile, MappedVectors, map_vectors
from index_store.vectors.storage import finite_rows, normalised, read_vectors

LOG = logging.getLogger(__name__)


AnyVectorIndex = FlatIndex | IVFAndRestIndex


class VectorPart(NamedTuple):
    """The live items' vectors of one encoder that lie in one segment."""

    segment: str
    crc32c: int  # of the vectors' file, and of the file with the ids that they belong to
    ids: NDArray[np.int64]  # [rows], in the order of ``vectors``
    vectors: NDArray[np.float16]  # [rows, dim], as stored


class VectorReader:
    """The vectors of the live items, by encoder and row; safe to use from many threads."""

    def __init__(self, layout: Layout, generation: Generation, ids: NDArray[np.int64], locator: RowLocator) -> None:
        """Take the live items' ``ids``, ascending, and the ``locator`` of their rows; reads nothing yet."""
        self.layout, self.generation = layout, generation
        self._ids, self._locator = ids, locator
        self._infinite: dict[str, dict[str, NDArray[np.int64]]] = {}  # by encoder and segment: live rows

    def held(self, encoder: str) -> NDArray[np.bool_]:
        """Say of every row whether its vector of ``encoder`` is stored, bool ``[live items]``.

        A vector with an infinite number or NaN does not count, once :meth:`parts` has met it.
        """
        held = self._locator.vectors(encoder).held
        for rows in self._infinite.get(encoder, {}).values():
            held[rows] = False
        return held

    def parts(self, encoder: str, without: Container[str] = ()) -> Iterator[VectorPart]:
        """Read segment after segment, except those named in ``without``; only one part is in memory at a time.

        Rows with an infinite number or NaN are left out: no cosine could use them, and ``verify`` reports them.

        Raises:
            IndexCorruptError: a file is missing or damaged, or has another dimension than the others.
        """
        dim = 0
        locations = self._locator.vectors(encoder)
        for number, rows in locations.by_segment():
            segment = self.generation.segments[number]
            if segment.name not in without:
                path, record = self.layout.vectors(segment.name, encoder), segment.files[vectors_file(encoder)]
                vectors = read_vectors(path, segment.data_rows, record)[locations.row[rows]]
                if dim not in (0, vectors.shape[1]):
                    raise corrupt(path, f"holds vectors of {vectors.shape[1]} numbers, and another segment of {dim}")
                dim, finite = vectors.shape[1], finite_rows(vectors)
                if not finite.all():
                    self._infinite.setdefault(encoder, {})[segment.name] = rows[~finite]
                    LOG.warning("%s: %d vectors are not finite and not used", path, int((~finite).sum()))
                    rows, vectors = rows[finite], vectors[finite]
                yield VectorPart(segment.name, _checksum(segment, encoder), self._ids[rows], vectors)

    def stored(self, encoder: str) -> NDArray[np.float16]:
        """Return the vectors as they are on disk, float16 ``[live items, dim]``; a row without a vector is zeros."""
        return self._gather(np.arange(len(self._ids)), self.parts(encoder))

    def of_rows(self, encoder: str, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the vectors of ``rows``, all of which have one, in that order, as on disk, float16 ``[rows, dim]``."""
        locations = self._locator.vectors(encoder)
        found: dict[int, NDArray[np.float16]] = {}
        for number in np.unique(locations.segment[rows]).tolist():
            segment = self.generation.segments[number]
            path = self.layout.vectors(segment.name, encoder)
            found[number] = read_vectors(path, segment.data_rows, segment.files[vectors_file(encoder)])
        return np.stack([found[int(locations.segment[row])][locations.row[row]] for row in rows.tolist()])

    def _gather(self, rows: NDArray[np.int64], parts: Iterable[VectorPart], dim: int = 0) -> NDArray[np.float16]:
        """Return the vectors of ``rows``, ascending, from ``parts``; zeros for rows that are in none of them."""
        result = np.zeros((len(rows), dim), np.float16)
        for part in parts:
            if not result.shape[1]:
                result = np.zeros((len(rows), part.vectors.shape[1]), np.float16)
            wanted = is_among(part.ids, self._ids[rows])
            result[np.searchsorted(self._ids[rows], part.ids[wanted])] = part.vectors[wanted]
        return result

    def read(self, encoder: str) -> Floats:
        """Return the vectors with norm 1, float32 ``[live items, dim]``; a row without a vector is zeros."""
        return normalised(self.stored(encoder))

    def index(self, encoder: str, rows: NDArray[np.int64] | None = None) -> AnyVectorIndex:
        """Return the nearest-neighbour index over one encoder: IVF if one was trained and is still valid, else flat.

        Args:
            encoder: whose vectors.
            rows: that it finds, ascending, all of which have a vector; None: all that have one. Of a flat index the
                rows are then numbered by their place in ``rows``; an IVF index keeps their numbers.
        """
        names = np.array([segment.name for segment in self.generation.segments])
        locations = self._locator.vectors(encoder)
        wanted = locations.held if rows is None else np.zeros(len(self._ids), bool)
        if rows is not None:
            wanted[rows] = True

        def rows_of(segments: Container[str]) -> NDArray[np.bool_]:
            chosen = np.array([name in segments for name in names], bool)
            of_segments: NDArray[np.bool_] = wanted & chosen[locations.segment]
            return of_segments

        segments = {segment.name: segment for segment in self.generation.segments}

        def mapped_file(name: str) -> MappedFile:
            segment, file = segments[name], vectors_file(encoder)
            return map_vectors(self.layout.vectors(name, encoder), segment.data_rows, segment.files[file])

        ivf = open_ivf(
            self.layout,
            encoder,
            self.checksums(encoder),
            lambda names: self._ids[rows_of(names)],
            mapped_file,
        )
        if ivf is None:
            if rows is None:
                vectors = self.read(encoder)
                return FlatIndex(vectors, self.held(encoder))
            vectors = normalised(self._of_segments(encoder, rows))
            return FlatIndex(vectors, self.held(encoder)[rows])
        rest = np.flatnonzero(wanted & ~is_among(self._ids, ivf.ids))
        vectors = normalised(self._of_segments(encoder, rest, ivf.dim))
        held = self.held(encoder) & wanted
        mapped = {number: ivf.stored[name] for number, name in enumerate(names.tolist()) if name in ivf.stored}
        stored = MappedVectors(mapped, locations.segment, locations.row, ivf.dim)
        return IVFAndRestIndex(ivf, stored, self._ids, held, rest[held[rest]], vectors[held[rest]])

    def _of_segments(self, encoder: str, rows: NDArray[np.int64], dim: int = 0) -> NDArray[np.float16]:
        """Return the vectors of ``rows``, ascending, reading only the segments that hold them."""
        return self._gather(rows, self.parts(encoder, self.segments_without(encoder, rows)), dim)

    def segments_without(self, encoder: str, rows: NDArray[np.int64]) -> set[str]:
        """Return the names of the segments that hold no vector of ``rows``."""
        needed = set(np.unique(self._locator.vectors(encoder).segment[rows]).tolist())
        return {segment.name for number, segment in enumerate(self.generation.segments) if number not in needed}

    def segment_numbers(self, encoder: str) -> NDArray[np.int64]:
        """Return the number of the segment that holds each row's vector, int64 ``[live items]``; -1: none does."""
        return self._locator.vectors(encoder).segment

    def unusable(self, encoder: str) -> dict[str, NDArray[np.int64]]:
        """Return the rows whose vectors are not finite, by segment, of those that :meth:`parts` has read."""
        return dict(self._infinite.get(encoder, {}))

    def leave_out(self, encoder: str, rows: Mapping[str, NDArray[np.int64]]) -> None:
        """Count no vectors of ``rows``, by segment: another reader of this generation has found them unusable."""
        self._infinite.setdefault(encoder, {}).update(rows)

    def checksums(self, encoder: str) -> dict[str, int]:
        """Return a checksum of each segment's vectors and of the items that they belong to, by the segment's name."""
        return {s.name: _checksum(s, encoder) for s in self.generation.segments if vectors_file(encoder) in s.files}

    def live_rows(self, encoder: str) -> Mapping[str, int]:
        """Return the number of live vectors in each segment, by the segment's name."""
        segments = self.generation.segments
        return {segments[number].name: len(rows) for number, rows in self._locator.vectors(encoder).by_segment()}

    def bytes(self, encoder: str) -> int:
        """Estimate the bytes of float16 vectors for all live items from the files' sizes: a few too many at most."""
        name = vectors_file(encoder)
        sizes = [s.files[name].size // s.data_rows for s in self.generation.segments if name in s.files and s.data_rows]
        return len(self._ids) * min(sizes, default=0)


def _checksum(segment: SegmentRecord, encoder: str) -> int:
    """Return a CRC-32C over the checksums of a segment's vectors and of its ids.

    After going back a generation a segment may have the name and the vectors of an older one, but other ids.
    """
    ids = "filled.npy" if segment.filled else "items.parquet"
    known = [segment.files[name].crc32c for name in (vectors_file(encoder), ids) if name in segment.files]
    return int(google_crc32c.value(b"".join(value.to_bytes(4, "little") for value in known)))
