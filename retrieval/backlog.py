"""What the items of an index lack of its modes' tensors and its encoders' vectors, and in which order they get it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_store.catalog import Item
from index_store.places import few
from index_store.reader import IndexReader
from retrieval.errors import UsageError
from retrieval.images import read_image
from retrieval.lookup import locate_image
from retrieval.models import Models
from retrieval.modes import Need, Target
from retrieval.settings import NEWEST
from retrieval.work import state_of

OLDEST, PATH, LIKE = "oldest", "path", "like:"
LOOKED_AT = 4096  # items at a time: objects for a million at once would take a gigabyte


@dataclass(frozen=True)
class Job:
    """Items that lack the same, in the order in which they are to get it."""

    need: Need
    rows: NDArray[np.int64]  # of the reader


@dataclass(frozen=True)
class Copy:
    """Items that lack tensors of ``mode`` and have those of ``source``, a mode of the same target: they are equal."""

    mode: str
    source: str
    rows: NDArray[np.int64]  # of the reader


@dataclass(frozen=True)
class Backlog:
    """All that items which are in the index already are to get."""

    jobs: tuple[Job, ...] = ()
    copies: tuple[Copy, ...] = ()
    unavailable: int = 0  # items that lack something and whose file is gone, or has another size

    def __len__(self) -> int:
        return sum(len(job.rows) for job in self.jobs) + sum(len(copy.rows) for copy in self.copies)


def find_backlog(
    reader: IndexReader,
    wanted: Need,
    targets: Mapping[str, Target],
    rows: NDArray[np.int64] | None = None,
    without: Collection[int] = (),
    moved: Sequence[Item] = (),
) -> Backlog:
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
    return Backlog(jobs, copies, int((~there).sum()))


def items_of(reader: IndexReader, rows: NDArray[np.int64], moved: Mapping[int, Item]) -> list[Item]:
    """Return the items of ``rows``, as they are in ``moved`` where their id is there."""
    return [moved.get(item.id, item) for item in reader.items(rows)]


def _have_files(reader: IndexReader, rows: NDArray[np.int64], moved: Mapping[int, Item]) -> NDArray[np.bool_]:
    """Say of ``rows`` whether the file is there and has its size; its bytes are compared when it is read."""
    items = (item for some in few(rows, LOOKED_AT) for item in items_of(reader, some, moved))
    return np.fromiter((state_of(Path(item.uri))[0] == item.size for item in items), bool, len(rows))


def _distinct(lacks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return every row once, in the order of their first appearance."""
    if not len(lacks):
        return lacks
    _, firsts = np.unique(lacks, axis=0, return_index=True)
    return lacks[np.sort(firsts)]


def _take_copies(
    reader: IndexReader, wanted: Need, targets: Mapping[str, Target], lacks: NDArray[np.bool_]
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


def _need(wanted: Need, lack: NDArray[np.bool_]) -> Need:
    modes = tuple(mode for mode, lacks in zip(wanted.modes, lack[: len(wanted.modes)], strict=True) if lacks)
    encoders = zip(wanted.encoders, lack[len(wanted.modes) :], strict=True)
    return Need(modes, tuple(name for name, lacks in encoders if lacks))


def coverage(reader: IndexReader) -> dict[str, int]:
    """Return by mode how many items have their tensors in the index."""
    return {mode: int(reader.has_tensors(mode).sum()) for mode in reader.generation.modes}


def check_order(order: Sequence[str]) -> None:
    """Raise a UsageError unless ``order`` is one of the known ones, or names pictures: ``like:QUERY``, any number."""
    known = [word for word in order if word in (NEWEST, OLDEST, PATH)]
    pictures = [word for word in order if word.startswith(LIKE) and word != LIKE]
    unknown = [word for word in order if word not in known and word not in pictures]
    if unknown or not order:
        raise UsageError(f"unknown order '{' '.join(unknown)}'; known: newest, oldest, path, like:QUERY (repeatable)")
    if known and len(order) > 1:
        raise UsageError(f"several orders ({', '.join(order)}): give one; only like:QUERY may be repeated")


def in_order(reader: IndexReader, order: Sequence[str], models: Models) -> NDArray[np.int64]:
    """Return all rows in an order that :func:`check_order` knows.

    ``newest`` and ``oldest`` go by the files' time of change, ``path`` by name. ``like:QUERY`` puts first what is most
    alike by the mean cosine over the index's encoders; of several pictures, the likest counts.
    """
    if order[0].startswith(LIKE):
        likeness = np.max([_likeness(reader, word.removeprefix(LIKE), models) for word in order], axis=0)
        rows = np.lexsort((np.arange(len(reader)), -likeness))
    elif order[0] == PATH:
        uris = reader.uris()
        rows = np.array(sorted(range(len(uris)), key=uris.__getitem__), np.int64)
    else:
        _, times = reader.file_states()
        rows = np.argsort(times if order[0] == OLDEST else -times, kind="stable")
    return rows.astype(np.int64)


def _likeness(reader: IndexReader, query: str, models: Models) -> NDArray[np.float32]:
    """Return every item's likeness to ``query``, float32 ``[len(reader)]``."""
    encoders = [name for name in reader.generation.encoders if reader.has_vector(name).any()]
    if not encoders:
        raise UsageError(f"{reader.layout.root} has no coarse stage to tell what is like {query}; choose another order")
    image, _ = read_image(Path(locate_image(reader, query)), models.rules)
    need = Need(encoders=tuple(encoders))
    vectors = models.encode([models.prepare(image, need)], "query", need).vectors
    cosines = [reader.vectors(name) @ vectors[name][0] for name in encoders]
    mean: NDArray[np.float32] = np.mean(cosines, axis=0, dtype=np.float32)
    return mean
