"""Read the encoders' vectors of one generation's live items, and open the index that searches them."""

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_store.files import check_file
from index_store.generation import Generation
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
    crc32c: int  # of the vectors' file
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
                yield VectorPart(segment.name, record.crc32c, self._ids[rows], stored[locations.row[rows]])

    def stored(self, encoder: str) -> NDArray[np.float16]:
        """Return the vectors as they are on disk, float16 ``[live items, dim]``; a row without a vector is zeros."""
        return self._gather(np.arange(len(self._ids)), self.parts(encoder))

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
        """Return the CRC-32C of each segment's file of vectors, by the segment's name."""
        name = vectors_file(encoder)
        return {s.name: s.files[name].crc32c for s in self.generation.segments if name in s.files}

    def live_rows(self, encoder: str) -> Mapping[str, int]:
        """Return the number of live vectors in each segment, by the segment's name."""
        segments = self.generation.segments
        return {segments[number].name: len(rows) for number, rows in self._locator.vectors(encoder).by_segment()}

    def bytes(self, encoder: str) -> int:
        """Estimate the bytes of float16 vectors for all live items from the files' sizes: a few too many at most."""
        name = vectors_file(encoder)
        sizes = [s.files[name].size // s.data_rows for s in self.generation.segments if name in s.files and s.data_rows]
        return len(self._ids) * min(sizes, default=0)
