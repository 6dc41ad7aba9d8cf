"""Find the tensors and vectors that items of an index miss, and the order in which to compute them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_store.catalog import Item
from index_store.reader import IndexReader
from index_store.row_locations import batched
from retrieval.images.file_states import may_have_size, state_of
from retrieval.models.modes import Outputs

ITEMS_AT_ONCE = 4096  # as objects: a million of them would take a gigabyte


@dataclass(frozen=True)
class FillJob:
    """Items that miss the same outputs, in the order in which these are computed."""

    outputs: Outputs
    rows: NDArray[np.int64]  # of the reader


@dataclass(frozen=True)
class Missing:
    """All tensors and vectors that indexed images miss. Its length counts the images to complete."""

    jobs: tuple[FillJob, ...] = ()
    unavailable: int = 0  # items whose file is gone or has another size

    def __len__(self) -> int:
        return sum(len(job.rows) for job in self.jobs)


def find_missing(
    reader: IndexReader,
    wanted: Outputs,
    rows: NDArray[np.int64] | None = None,
    without: Collection[int] = (),
    moved: Sequence[Item] = (),
) -> Missing:
    """Return the outputs of ``wanted`` that items miss.

    Args:
        reader: the index.
        wanted: the modes and encoders that every item should have.
        rows: in the order of computation; by default by id. Items that miss the same outputs are computed together.
        without: ids to leave out.
        moved: items whose files were renamed, with their new paths.
    """
    order = np.arange(len(reader)) if rows is None else rows
    held = [reader.has_tensors(mode) for mode in wanted.modes] + [reader.has_vector(name) for name in wanted.encoders]
    included = ~np.isin(reader.ids, np.array(sorted(without), np.int64))
    absent = ~np.array(held, bool).reshape(len(held), len(reader)) & included  # [modes and encoders, items]
    absent = absent.T[order]
    incomplete = absent.any(axis=1)
    order, absent = order[incomplete], absent[incomplete]
    there = _have_files(reader, order, {item.id: item for item in moved})
    jobs = tuple(
        FillJob(_outputs(wanted, pattern), order[there & (absent == pattern).all(axis=1)])
        for pattern in _distinct(absent[there])
    )
    return Missing(jobs, int((~there).sum()))


def items_of(reader: IndexReader, rows: NDArray[np.int64], moved: Mapping[int, Item]) -> list[Item]:
    """Return the items of ``rows``; an item in ``moved`` (by id) takes the place of its old entry."""
    return [moved.get(item.id, item) for item in reader.items(rows)]


def _have_files(reader: IndexReader, rows: NDArray[np.int64], moved: Mapping[int, Item]) -> NDArray[np.bool_]:
    """Return for every row whether its file exists with the same size; its bytes are compared when it is read."""
    items = (item for some in batched(rows, ITEMS_AT_ONCE) for item in items_of(reader, some, moved))
    return np.fromiter((may_have_size(state_of(item.uri), item.size) for item in items), bool, len(rows))


def _distinct(patterns: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return every row once, in the order of first appearance."""
    if not len(patterns):
        return patterns
    _, firsts = np.unique(patterns, axis=0, return_index=True)
    return patterns[np.sort(firsts)]


def _outputs(wanted: Outputs, pattern: NDArray[np.bool_]) -> Outputs:
    """Return the part of ``wanted`` that ``pattern`` ``[modes and encoders]`` marks."""
    modes = tuple(mode for mode, absent in zip(wanted.modes, pattern[: len(wanted.modes)], strict=True) if absent)
    encoders = zip(wanted.encoders, pattern[len(wanted.modes) :], strict=True)
    return Outputs(modes, tuple(name for name, absent in encoders if absent))
