"""Read the encoders' vectors of one generation's live items, and open the index that searches them."""

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from index_store.files import check_file
from index_store.generation import Generation, SegmentRecord
from index_store.layout import Layout, vectors_file
from index_store.row_locations import RowLocator
from index_store.vectors.exact import Floats
from index_store.vectors.flat import FlatIndex
from index_store.vectors.ivf import open_ivf
from index_store.vectors.ivf_and_rest import IVFAndRestIndex
from index_store.vectors.storage import normalised, read_vectors


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

    def held(self, encoder: str) -> NDArray[np.bool_]:
        """Say of every row whether its vector of ``encoder`` is stored, bool ``[live items]``."""
        return self._locator.vectors(encoder).held

    def parts(self, encoder: str, without: Container[str] = ()) -> Iterator[VectorPart]:
        """Read segment after segment, except those named in ``without``; only one part is in memory at a time."""
        locations = self._locator.vectors(encoder)
        for number, rows in locations.by_segment():
            segment = self.generation.segments[number]
            if segment.name not in without:
                path, record = self.layout.vectors(segment.name, encoder), segment.files[vectors_file(encoder)]
                check_file(path, record)
                stored = read_vectors(path, segment.data_rows)
                yield VectorPart(
                    segment.name, _checksum(segment, encoder), self._ids[rows], stored[locations.row[rows]]
                )

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
            check_file(path, segment.files[vectors_file(encoder)])
            found[number] = read_vectors(path, segment.data_rows)
        return np.stack([found[int(locations.segment[row])][locations.row[row]] for row in rows.tolist()])

    def _gather(self, rows: NDArray[np.int64], parts: Iterable[VectorPart], dim: int = 0) -> NDArray[np.float16]:
        """Return the vectors of ``rows``, ascending, from ``parts``; zeros for rows that are in none of them."""
        result = np.zeros((len(rows), dim), np.float16)
        for part in parts:
            if not result.shape[1]:
                result = np.zeros((len(rows), part.vectors.shape[1]), np.float16)
            result[np.searchsorted(self._ids[rows], part.ids)] = part.vectors
        return result

    def read(self, encoder: str) -> Floats:
        """Return the vectors with norm 1, float32 ``[live items, dim]``; a row without a vector is zeros."""
        return normalised(self.stored(encoder))

    def index(self, encoder: str) -> FlatIndex | IVFAndRestIndex:
        """Return the nearest-neighbour index over one encoder: IVF if one was trained and is still valid, else flat."""
        removed = np.array(self.generation.tombstones, np.int64)
        opened = open_ivf(self.layout, encoder, self.checksums(encoder), removed)
        if opened is None:
            return FlatIndex(self.read(encoder), self.held(encoder))
        record, ivf = opened
        in_ivf = np.array([segment.name in record.segments for segment in self.generation.segments], bool)
        locations = self._locator.vectors(encoder)
        rest = np.flatnonzero(~in_ivf[locations.segment] & locations.held)
        vectors = normalised(self._gather(rest, self.parts(encoder, record.segments), ivf.dim))
        return IVFAndRestIndex(ivf, self._ids, locations.held, rest, vectors)

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
