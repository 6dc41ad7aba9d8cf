"""What the items of an index lack of its modes' tensors and its encoders' vectors, and in which order they get it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_store.catalog import Item
from index_store.reader import IndexReader
from index_store.row_locations import batched
from retrieval.images.discovery import state_of
from retrieval.models.modes import Outputs, Target

LOOKED_AT = 4096  # items at a time: objects for a million at once would take a gigabyte


@dataclass(frozen=True)
class Job:
    """Items that lack the same, in the order in which they are to get it."""

    need: Outputs
    rows: NDArray[np.int64]  # of the reader


@dataclass(frozen=True)
class Copy:
    """Items that lack tensors of ``mode`` and have those of ``source``, a mode of the same target: they are equal."""

    mode: str
    source: str
    rows: NDArray[np.int64]  # of the reader


@dataclass(frozen=True)
class Missing:
    """All that items which are in the index already are to get."""

    jobs: tuple[Job, ...] = ()
    copies: tuple[Copy, ...] = ()
    unavailable: int = 0  # items that lack something and whose file is gone, or has another size

    def __len__(self) -> int:
        return sum(len(job.rows) for job in self.jobs) + sum(len(copy.rows) for copy in self.copies)


def find_missing(
    reader: IndexReader,
    wanted: Outputs,
    targets: Mapping[str, Target],
    rows: NDArray[np.int64] | None = None,
    without: Collection[int] = (),
    moved: Sequence[Item] = (),
) -> Missing:
    """Return what items lack of ``wanted``.

    Args:
        reader: the index.
        wanted: what every item is to have.
        targets: what each mode reads, the index's own and those that are added to it.
        rows: the order in which items get it; by default that of their ids. Items that lack the same come together.
        without: ids that don't count.
        moved: items whose files are elsewhere by now.
    """
    order = np.arange(len(reader)) if rows is None else rows
    held = [reader.has_tensors(mode) for mode in wanted.modes] + [reader.has_vector(name) for name in wanted.encoders]
    counts = ~np.isin(reader.ids, np.array(sorted(without), np.int64))
    lacks = ~np.array(held, bool).reshape(len(held), len(reader)) & counts
    copies = _take_copies(reader, wanted, targets, lacks)
    lacks = lacks.T[order]
    counted = lacks.any(axis=1)
    order, lacks = order[counted], lacks[counted]
    there = _have_files(reader, order, {item.id: item for item in moved})
    jobs = tuple(
        Job(_need(wanted, lack), order[there & (lacks == lack).all(axis=1)]) for lack in _distinct(lacks[there])
    )
    return Missing(jobs, copies, int((~there).sum()))


def items_of(reader: IndexReader, rows: NDArray[np.int64], moved: Mapping[int, Item]) -> list[Item]:
    """Return the items of ``rows``, as they are in ``moved`` where their id is there."""
    return [moved.get(item.id, item) for item in reader.items(rows)]


def _have_files(reader: IndexReader, rows: NDArray[np.int64], moved: Mapping[int, Item]) -> NDArray[np.bool_]:
    """Say of ``rows`` whether the file is there and has its size; its bytes are compared when it is read."""
    items = (item for some in batched(rows, LOOKED_AT) for item in items_of(reader, some, moved))
    return np.fromiter((state_of(Path(item.uri))[0] == item.size for item in items), bool, len(rows))


def _distinct(lacks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return every row once, in the order of their first appearance."""
    if not len(lacks):
        return lacks
    _, firsts = np.unique(lacks, axis=0, return_index=True)
    return lacks[np.sort(firsts)]


def _take_copies(
    reader: IndexReader, wanted: Outputs, targets: Mapping[str, Target], lacks: NDArray[np.bool_]
) -> tuple[Copy, ...]:
    """Find what can be copied, and strike it out of ``lacks`` ``[modes and encoders, items]``."""
    copies: list[Copy] = []
    for mode, lack in zip(wanted.modes, lacks, strict=False):
        for source in reader.generation.modes:
            if source != mode and targets[source] == targets[mode]:
                rows = np.flatnonzero(lack & reader.has_tensors(source))
                lack[rows] = False
                copies += [Copy(mode, source, rows)] if len(rows) else []
    return tuple(copies)


def _need(wanted: Outputs, lack: NDArray[np.bool_]) -> Outputs:
    modes = tuple(mode for mode, lacks in zip(wanted.modes, lack[: len(wanted.modes)], strict=True) if lacks)
    encoders = zip(wanted.encoders, lack[len(wanted.modes) :], strict=True)
    return Outputs(modes, tuple(name for name, lacks in encoders if lacks))
