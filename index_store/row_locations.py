"""Where each live item's data lie: in its own segment, in one that was filled later, or nowhere."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_store.generation import SegmentRecord

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class RowLocations:
    """Where the live items' data of one mode or encoder lie, by row of the reader; int64 ``[live items]`` both."""

    segment: NDArray[np.int64]  # its number in the generation; -1: the item lacks these data
    row: NDArray[np.int64]  # among the segment's data

    @property
    def held(self) -> NDArray[np.bool_]:
        """Whether the item has these data, bool ``[live items]``."""
        held: NDArray[np.bool_] = self.segment >= 0
        return held

    def by_segment(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the number of each segment that holds any, with the reader's rows that it holds, ascending."""
        order = np.argsort(self.segment, kind="stable")
        numbers, starts = np.unique(self.segment[order], return_index=True)
        ends = [*starts[1:].tolist(), len(order)]
        for number, start, end in zip(numbers.tolist(), starts.tolist(), ends, strict=False):
            if number >= 0:
                yield number, order[start:end]


def locate_rows(
    own: RowLocations, ids: Ids, segments: Sequence[SegmentRecord], held: Sequence[bool], filled: Callable[[int], Ids]
) -> RowLocations:
    """Find the live items' data of one kind.

    Args:
        own: where items have the data that were made with them.
        ids: the live items' ids, ascending.
        segments: the generation's.
        held: which of them hold data of this kind.
        filled: reads the ids of a filled segment, by its number.
    """
    if not len(ids):
        return own
    there = np.array(held, bool)[own.segment]
    places = RowLocations(np.where(there, own.segment, -1), np.where(there, own.row, 0))
    for number, segment in enumerate(segments):
        if segment.filled and held[number]:
            wanted = filled(number)
            rows = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
            live = ids[rows] == wanted  # an item may have been removed since
            places.segment[rows[live]], places.row[rows[live]] = number, np.flatnonzero(live)
    return places


def is_among(ids: Ids, known: Ids) -> NDArray[np.bool_]:
    """Say of every id whether it is among ``known``, which ascend; not np.isin, which would sort them each time."""
    if not len(known):
        return np.zeros(len(ids), bool)
    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, ids), len(known) - 1)] == ids
    return found


def batched(numbers: Ids, count: int) -> Generator[Ids, None, None]:
    """Yield ``numbers``, ids or rows, ``count`` at a time: as many as there is memory for their items' tensors."""
    for start in range(0, len(numbers), count):
        yield numbers[start : start + count]
