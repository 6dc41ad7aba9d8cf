"""Index files whose content another item has: vectors and tensors are copied, bit by bit, and nothing is computed."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from index_store.catalog import Item
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.row_locations import batched
from index_store.segment_writer import SegmentWriter
from retrieval.errors import IndexCorruptError
from retrieval.indexing.committer import SegmentCommitter
from retrieval.indexing.segment_job import FinishedSegment, SegmentLimit, write_segment
from retrieval.indexing.sources.hashing import HashedFile
from retrieval.indexing.sources.matching import at_file
from retrieval.indexing.sources.retired import open_retired
from retrieval.models.modes import Outputs

COPIED_ROWS = 16  # read and written at a time


class ContentCopier:
    """Writes segments of copied items. The caller holds the writer's lock."""

    def __init__(self, layout: Layout, committer: SegmentCommitter) -> None:
        self._layout, self._committer = layout, committer
        self._left: list[HashedFile] = []

    def run(self, files: Sequence[HashedFile], replaced: Mapping[str, int]) -> list[HashedFile]:
        """Add an item for each of ``files``; ``replaced`` holds the ids of items that give way, by path.

        The content is looked for in the index, then in the segments that a compaction has retired.

        Returns:
            The files that no readable item has the content of; they must be computed.
        """
        if not files:
            return []
        reader = IndexReader(self._layout.root)  # opened again: it has the images that were just computed
        self._left = list(files)
        self._copy(reader, reader.items(reader.catalog.with_content(_digests(files))), replaced)
        for retired in open_retired(reader, self._committer.run) if self._left else ():
            self._copy(retired.reader, retired.like(_digests(self._left)), replaced)
        return self._left

    def _copy(self, reader: IndexReader, items: Sequence[Item], replaced: Mapping[str, int]) -> None:
        """Add an item for each file that is left and has the content of one of ``items``."""
        alike = {item.sha256: item for item in items}
        files, self._left = self._left, [file for file in self._left if file.sha256 not in alike]
        pairs = [(file, alike[file.sha256]) for file in files if file.sha256 in alike]
        rows = np.searchsorted(reader.ids, np.array([item.id for _, item in pairs], np.int64))
        for outputs, chosen in _by_outputs(reader, rows):
            write = partial(self._write, reader, outputs, rows[chosen], [pairs[at] for at in chosen.tolist()])
            self._committer.commit_all(len(chosen), COPIED_ROWS, write, replaced)

    def _write(
        self,
        reader: IndexReader,
        outputs: Outputs,
        rows: NDArray[np.int64],
        pairs: Sequence[tuple[HashedFile, Item]],
        name: str,
        part: slice,
    ) -> FinishedSegment:
        committer, first = self._committer, self._committer.generation.next_id
        writer = SegmentWriter(self._layout, name, reader.codec, committer.sources)

        def append(at: NDArray[np.int64]) -> int:
            some = [pairs[position] for position in at.tolist()]
            try:
                vectors = {encoder: reader.vector_reader.of_rows(encoder, rows[at]) for encoder in outputs.encoders}
                tensors = {mode: reader.attention(mode, rows[at].tolist()) for mode in outputs.modes}
            except IndexCorruptError:
                self._left.extend(file for file, _ in some)
                return len(some)
            numbers = range(first + writer.items, first + writer.items + len(some))
            items = [
                replace(at_file(item, file), id=number) for number, (file, item) in zip(numbers, some, strict=True)
            ]
            writer.append(items, [], vectors, tensors)
            committer.tally.advance(len(some))
            return len(some)

        limit = SegmentLimit(committer.run.commit_seconds, committer.cancel)
        batches = _until(limit, np.arange(len(pairs))[part])
        return write_segment(writer, batches, append, committer.tally.clock, first)


def _digests(files: Sequence[HashedFile]) -> set[str]:
    return {file.sha256 for file in files if file.sha256 is not None}


def _by_outputs(reader: IndexReader, rows: NDArray[np.int64]) -> Iterator[tuple[Outputs, NDArray[np.int64]]]:
    """Yield positions in ``rows`` whose items hold the same outputs, and these outputs."""
    modes, encoders = reader.generation.stored_names, reader.generation.encoders
    held = [reader.has_tensors(mode)[rows] for mode in modes] + [reader.has_vector(name)[rows] for name in encoders]
    table = np.array(held, bool).reshape(len(held), len(rows)).T
    for pattern in np.unique(table, axis=0):
        some_modes = tuple(name for name, is_held in zip(modes, pattern, strict=False) if is_held)
        some_encoders = tuple(name for name, is_held in zip(encoders, pattern[len(modes) :], strict=True) if is_held)
        outputs = Outputs(some_modes, some_encoders)
        yield outputs, np.flatnonzero((table == pattern).all(axis=1))


def _until(limit: SegmentLimit, positions: NDArray[np.int64]) -> Generator[NDArray[np.int64], None, None]:
    """Yield ``positions`` a few at a time, until the segment must end."""
    for some in batched(positions, COPIED_ROWS):
        goes_on = limit.allows_more()
        yield some
        if not goes_on:
            return
