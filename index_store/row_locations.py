"""Find the segment and row that hold each live item's tensors or vectors."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_store.files import FileRecord, corrupt, read_array, write_array
from index_store.generation import Generation, SegmentRecord
from index_store.layout import Layout, vectors_file

Ids = NDArray[np.int64]
STORED_ID = np.dtype("<i8")
NOWHERE = -1


@dataclass(frozen=True)
class RowLocations:
    """The segment and row of each live item's data of one mode or encoder; both arrays int64 ``[live items]``."""

    segment: NDArray[np.int64]  # number of the segment in the generation; NOWHERE: the item has no such data
    row: NDArray[np.int64]  # row in the segment's data

    @property
    def held(self) -> NDArray[np.bool_]:
        """Whether each item has these data, bool ``[live items]``."""
        held: NDArray[np.bool_] = self.segment != NOWHERE
        return held

    def by_segment(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield each segment's number with the live rows that it holds, ascending; skip segments that hold none."""
        order = np.argsort(self.segment, kind="stable")
        numbers, starts = np.unique(self.segment[order], return_index=True)
        ends = [*starts[1:].tolist(), len(order)]
        for number, start, end in zip(numbers.tolist(), starts.tolist(), ends, strict=False):
            if number != NOWHERE:
                yield number, order[start:end]


class RowLocator:
    """Answers where the live items' data of a mode or an encoder are; remembers the answers."""

    def __init__(self, layout: Layout, generation: Generation, ids: Ids, own: RowLocations) -> None:
        """Take the live items' ``ids``, ascending, and their ``own`` locations: where the catalogue lists them."""
        self._layout, self._generation, self._ids, self._own = layout, generation, ids, own
        self._found: dict[str, RowLocations] = {}

    def tensors(self, name: str) -> RowLocations:
        """Return where the tensors that are stored under ``name`` are."""
        return self._locate(f"mode {name}", lambda segment: name in segment.attention, name)

    def vectors(self, encoder: str) -> RowLocations:
        """Return where the vectors of ``encoder`` are."""
        return self._locate(f"encoder {encoder}", lambda segment: vectors_file(encoder) in segment.files)

    def _locate(self, key: str, holds: Callable[[SegmentRecord], bool], mode: str = "") -> RowLocations:
        if key not in self._found:
            segments = self._generation.segments
            held = [holds(segment) for segment in segments]
            lost = [segment.lost.get(mode, ()) for segment in segments]
            self._found[key] = locate_rows(self._own, self._ids, segments, held, self._filled_ids, lost)
        return self._found[key]

    def _filled_ids(self, number: int) -> Ids:
        segment = self._generation.segments[number]
        path = self._layout.filled(segment.name)
        return read_ids(path, segment.filled, segment.files[path.name])


def locate_rows(
    own: RowLocations,
    ids: Ids,
    segments: Sequence[SegmentRecord],
    held: Sequence[bool],
    filled: Callable[[int], Ids],
    lost: Sequence[Sequence[int]] = (),
) -> RowLocations:
    """Find the live items' data of one kind.

    Args:
        own: each item's location in the segment that its catalogue row is in.
        ids: the live items' ids, ascending.
        segments: the generation's.
        held: whether each segment holds data of this kind.
        filled: reads the ids of a filled segment, by its number.
        lost: by segment, rows whose data of this kind a repair took out; by default none.
    """
    if not len(ids):
        return own
    in_own_segment = np.array(held, bool)[own.segment]
    for number, gone in enumerate(lost):
        if gone:
            in_own_segment &= (own.segment != number) | ~np.isin(own.row, gone)
    found = RowLocations(np.where(in_own_segment, own.segment, NOWHERE), np.where(in_own_segment, own.row, 0))
    for number, segment in enumerate(segments):
        if segment.filled and held[number]:
            wanted = filled(number)
            rows = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
            live = ids[rows] == wanted  # the others were removed since
            if lost and lost[number]:
                live[list(lost[number])] = False
            found.segment[rows[live]], found.row[rows[live]] = number, np.flatnonzero(live)
    return found


def is_among(ids: Ids, known: Ids) -> NDArray[np.bool_]:
    """Say of every id whether it is in ``known``, which is ascending: np.isin would sort it again in each call."""
    if not len(known):
        return np.zeros(len(ids), bool)
    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, ids), len(known) - 1)] == ids
    return found


def write_ids(path: Path, ids: Sequence[int]) -> None:
    """Write items' ids as one npy file, int64 ``[ids]``."""
    write_array(path, np.array(ids, STORED_ID))


def read_ids(path: Path, rows: int, record: FileRecord | None = None) -> Ids:
    """Read a file of :func:`write_ids`; IndexCorruptError unless it fits ``record`` and holds ``rows`` ids once."""
    ids: Ids = read_array(path, record)
    if ids.dtype != STORED_ID or ids.shape != (rows,):
        raise corrupt(path, f"holds {ids.dtype} {ids.shape} instead of {rows} ids")
    if rows and (ids.min() < 0 or len(np.unique(ids)) != rows):
        raise corrupt(path, "holds an id twice, or a negative one")
    return ids


def batched(numbers: Ids, count: int) -> Generator[Ids, None, None]:
    """Yield ``numbers``, ids or rows, in chunks of ``count``, so that the caller's tensors fit in memory."""
    for start in range(0, len(numbers), count):
        yield numbers[start : start + count]
