"""Commit finished segments: the driver's end of builds and fills."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil

from index_store.catalog_files.rows import GONE, UNKNOWN, Reject
from index_store.catalog_files.sources import Source
from index_store.commit import commit
from index_store.garbage import clear_uncommitted, prepare_to_write
from index_store.generation import Generation, SegmentRecord
from index_store.ids import new_segment_name
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.segment_writer import SegmentWriter
from retrieval.encoding.timing import WRITE
from retrieval.indexing.changes import Changes
from retrieval.indexing.segment_job import FinishedSegment
from retrieval.indexing.tally import ProgressTally
from retrieval.progress import Cancellation
from retrieval.settings import BuildSettings
from retrieval.version import CREATED_BY

WriteSegment = Callable[[str, slice], FinishedSegment]
"""Writes one segment of the given name from a range of images. It may end before the end of the range."""


def clear_leftovers(layout: Layout, reader: IndexReader | None) -> Generation | None:
    """Clear the disk for a writer, see :func:`index_store.garbage.prepare_to_write`; return the generation to grow.

    Without a ``reader`` there is no index yet: everything goes, and there is no generation.
    """
    if reader is not None:
        return prepare_to_write(layout, reader.generation)
    clear_uncommitted(layout, None)
    return None


class SegmentCommitter:
    """Holds the generation of an index as it grows. The caller holds the writer's lock."""

    def __init__(
        self,
        layout: Layout,
        generation: Generation,
        run: BuildSettings,
        tally: ProgressTally,
        cancel: Cancellation | None = None,
        sources: tuple[Source, ...] | None = None,
    ) -> None:
        """Go on from ``generation``; every commit gives the index these ``sources``, or leaves it its own."""
        self.generation = generation
        self.run, self.tally, self.cancel = run, tally, cancel
        self.added = self.replaced = self.copied = 0  # items; changed files, and copies of others, among them
        self.partial: dict[str, str] = {}  # by path: what was used of an item whose file is cut
        self.sources = generation.sources if sources is None else sources
        self._layout = layout

    def commit_all(
        self, count: int, batch: int, write: WriteSegment, replaced: Mapping[str, int] | None = None
    ) -> None:
        """Have ``count`` images written as segments, and commit each before the next begins.

        Args:
            count: images; ``write`` gets a range of them at a time.
            batch: images of a batch; a segment has whole batches, so that a resumed build cuts the same ones.
            write: writes one segment.
            replaced: the ids of older items that the new segments replace, by path.

        Raises:
            CancelledError: the work was asked to stop; complete batches are committed.
        """
        size, start = batch * ceil(self.run.segment_rows / batch), 0
        while start < count:
            if self.cancel is not None:
                self.cancel.check()
            segment = write(self._next_name(), slice(start, min(start + size, count)))
            self.commit([segment], replaced or {})
            start += segment.images

    def _next_name(self) -> str:
        return new_segment_name(self._layout, self.generation.number)

    def commit(self, segments: Sequence[FinishedSegment], replaced: Mapping[str, int]) -> None:
        """Commit finished segments together, even if Ctrl-C interrupts that. They must come in the order of their ids.

        Raises:
            ValueError: a segment's ids are lower than those before it.
            BaseException: the error or interrupt that stopped a segment's job or this commit, after the commit.
        """
        interrupt = next((segment.stopped for segment in segments if segment.stopped is not None), None)
        written = [(segment.record, segment) for segment in segments if segment.record is not None]
        if written:
            try:
                self._add(written, replaced)
            except Exception:
                raise
            except BaseException as error:
                interrupt = error
                self._add(written, replaced)
            for record, segment in written:
                self.added += record.rows
                self.partial |= segment.partial
                self.replaced += sum(uri in replaced for uri in segment.uris)
            self.tally.committed()
        if interrupt is not None:
            raise interrupt

    def _add(self, written: Sequence[tuple[SegmentRecord, FinishedSegment]], replaced: Mapping[str, int]) -> None:
        """Commit the generation with more segments and without the items that they replace, unless that is done."""
        records, next_id, old = tuple(record for record, _ in written), self.generation.next_id, []
        if records[-1] in self.generation.segments[-1:]:
            return
        for record, segment in written:
            if record.rows and segment.next_id - record.rows < next_id:
                raise ValueError(f"segment {record.name} has ids below {next_id}, the next free one")
            next_id = max(next_id, segment.next_id)
            old += [replaced[uri] for uri in (*segment.uris, *segment.rejected_uris) if uri in replaced]
        grown = replace(
            self.generation,
            segments=(*self.generation.segments, *records),
            tombstones=self._buried(old),
            next_id=next_id,
        )
        with self.tally.clock.working(WRITE, 0):
            self._store(grown)

    def _buried(self, ids: Iterable[int]) -> tuple[int, ...]:
        return tuple(sorted({*self.generation.tombstones, *ids}))

    def _store(self, generation: Generation) -> None:
        self.generation = commit(self._layout, replace(generation, sources=self.sources), CREATED_BY)

    def apply_moves(self, changes: Changes) -> None:
        """Commit renamed, touched, revived and vanished files, and forget rejects whose files are gone.

        Nothing is computed: vectors and tensors stay, or are dropped.
        """
        buried = set(self._buried(changes.vanished)) - changes.revived
        grown = replace(self.generation, tombstones=tuple(sorted(buried)))
        if changes.moved or changes.cleared:
            writer = SegmentWriter(self._layout, self._next_name(), sources=self.sources)
            writer.append([], [Reject(uri, UNKNOWN, UNKNOWN, GONE, "") for uri in changes.cleared], {}, {})
            writer.move(changes.moved)
            self._store(replace(grown, segments=(*grown.segments, writer.finish())))
            self.tally.committed()
        elif changes.vanished:
            self._store(grown)

    def note_sources(self) -> None:
        """Commit the sources if no other commit has: they were moved or given for the first time."""
        if self.generation.sources != self.sources:
            self._store(self.generation)
