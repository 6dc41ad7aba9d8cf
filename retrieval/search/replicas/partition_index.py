"""One encoder's vectors of one partition, numbered by the rows of the whole index."""

from dataclasses import dataclass

import numpy as np
import torch

from index_store.reader import IndexReader
from index_store.row_locations import is_among
from index_store.vectors.exact import Ranked
from index_store.vectors.ivf_and_rest import IVFAndRestIndex
from retrieval.search.coarse_vectors import Floats, NearestAsk, Rows
from retrieval.search.gpu_index import VectorIndex, open_vector_index


@dataclass(frozen=True)
class PartAsk:
    """A :class:`NearestAsk` as one partition gets it: ``allowed`` has only its own rows."""

    ask: NearestAsk
    wanted: int = 0  # rows that the IVF parts of all partitions should find together; 0: there are none
    probes: int | None = None  # lists to probe; None: as many as were measured for ``wanted``


@dataclass(frozen=True)
class PartNearest:
    """The rows of one partition that may be among the nearest of all."""

    rows: Rows
    cosines: Floats  # [rows]
    products: Floats  # [rows], by which an IVF part chose them; NaN: compared exactly
    probes: int = 0  # lists that were probed
    lists: int = 0  # lists in all; 0: there is none


@dataclass(frozen=True)
class PartAbout:
    """What a router must know about one encoder's vectors of a partition."""

    dim: int
    ivf_rows: int  # in the IVF part
    unusable: dict[str, Rows]  # rows whose vectors are not finite, by segment


class PartitionIndex:
    """Finds the nearest of a partition's rows; safe in many threads."""

    def __init__(self, reader: IndexReader, encoder: str, rows: Rows, device: torch.device) -> None:
        """Read the vectors of ``rows``, ascending, all of which have one; at least one row."""
        self._rows = rows
        self._index: VectorIndex = open_vector_index(reader, encoder, device, rows)
        self._ivf = self._index if isinstance(self._index, IVFAndRestIndex) else None
        unusable = reader.vector_reader.unusable(encoder)
        self.about = PartAbout(self._index.dim, self._ivf.ivf_rows if self._ivf else 0, unusable)

    def nearest(self, part: PartAsk) -> PartNearest:
        """Return the nearest rows; of an IVF part, those with the largest products in the probed lists."""
        ask, ivf = part.ask, self._ivf
        if ivf is None or ask.allowed is not None or not part.wanted:
            rows, cosines = self._search(ask)
            return PartNearest(rows, cosines, np.full(len(rows), np.nan, np.float32))
        probes = part.probes or ivf.ivf.probes_for(part.wanted)
        probed, products = ivf.probe(ask.vector, part.wanted, probes)
        newer = ivf.newer(ask.vector, ask.count)
        rows = np.concatenate([probed, newer])
        exact = np.full(len(newer), np.nan, np.float32)
        cosines = ivf.similarities(ask.vector, rows)
        return PartNearest(rows, cosines, np.concatenate([products, exact]), probes, ivf.ivf.lists)

    def similarities(self, query: Floats, rows: Rows) -> Floats:
        """Return the cosines of ``query [dim]`` with ``rows``, in their order."""
        return self._index.similarities(query, self._places(rows))

    def vectors(self, rows: Rows) -> Floats:
        """Return the vectors of ``rows``, float32 of norm 1 ``[rows, dim]``."""
        return self._index.vectors(self._places(rows))

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return self._index.dim

    def search(self, query: Floats, count: int, allowed: Rows | None = None) -> Ranked:
        """Return the nearest rows and their cosines, best first, all compared exactly unless there is an IVF part."""
        return self._search(NearestAsk("", query, count, allowed))

    def _search(self, ask: NearestAsk) -> Ranked:
        if self._ivf is not None:
            return self._ivf.search(ask.vector, ask.count, ask.allowed)
        places = None if ask.allowed is None else np.flatnonzero(is_among(self._rows, ask.allowed))
        found, cosines = self._index.search(ask.vector, ask.count, places)
        return self._rows[found], cosines

    def _places(self, rows: Rows) -> Rows:
        return rows if self._ivf is not None else np.searchsorted(self._rows, rows).astype(np.int64)
