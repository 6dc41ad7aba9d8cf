"""Which partition answers for a row: the one that holds the segment with the row's vector, or with its tensors."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.search.coarse_vectors import Rows

NOBODY = -1
Owners = NDArray[np.int16]
"""Numbers of partitions; NOBODY for rows without data."""


def rows_of_segments(reader: IndexReader, numbers: NDArray[np.int64], names: Collection[str]) -> Rows:
    """Return the rows, ascending, whose segment, of ``numbers [rows]``, has one of ``names``."""
    chosen = np.array([segment.name in names for segment in reader.generation.segments], bool)
    rows: Rows = np.flatnonzero((numbers >= 0) & chosen[numbers]) if len(chosen) else np.empty(0, np.int64)
    return rows


def places_by_partition(owners: Sequence[Owners]) -> dict[int, dict[int, NDArray[np.intp]]]:
    """Return where each partition stands in each of ``owners``, by partition and number, without nobody's places."""
    places: dict[int, dict[int, NDArray[np.intp]]] = {}
    for number, mine in enumerate(owners):
        for partition in np.unique(mine[mine != NOBODY]).tolist():
            places.setdefault(partition, {})[number] = np.flatnonzero(mine == partition)
    return places


class Ownership:
    """The partitions of one generation's rows, by encoder and mode; safe in many threads."""

    def __init__(self, reader: IndexReader, partitions: Sequence[Collection[str]]) -> None:
        """Take an opened index, and the names of the segments of each partition."""
        self._reader = reader
        of_name = {name: number for number, names in enumerate(partitions) for name in names}
        names = [segment.name for segment in reader.generation.segments]
        # One more, so that the segment -1 of a row without data leads to nobody.
        self._of_segment = np.array([*(of_name[name] for name in names), NOBODY], np.int16)
        self._known: dict[tuple[str, str], Owners] = {}

    def of_vectors(self, encoder: str) -> Owners:
        """Return the partition of each row's vector, ``[rows]``; NOBODY for a row without one."""
        key = ("vectors", encoder)
        if key not in self._known:
            self._known[key] = self._of_segment[self._reader.vector_reader.segment_numbers(encoder)]
        return self._known[key]

    def of_tensors(self, mode: str) -> Owners:
        """Return the partition of each row's tensors, ``[rows]``; a row without any is its own segment's."""
        key = ("tensors", mode)
        if key not in self._known:
            stored, own = self._reader.tensor_reader.segment_numbers(mode), self._reader.catalog.own_locations.segment
            self._known[key] = self._of_segment[np.where(stored >= 0, stored, own)]
        return self._known[key]
