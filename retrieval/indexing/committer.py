"""Put batches into segments and commit each segment when it is large or old enough: what a build and a fill share."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import TypeVar

from index_store.commit import commit
from index_store.generation import Generation, SegmentRecord
from index_store.layout import Layout
from index_store.remote.mirror import segment_name
from index_store.segment_writer import SegmentWriter
from retrieval.encoding.timing import WRITE, StageClock
from retrieval.errors import NoSpaceError
from retrieval.settings import BuildSettings
from retrieval.version import CREATED_BY

_Batch = TypeVar("_Batch")

Grow = Callable[[SegmentWriter, SegmentRecord], Generation]
"""What the generation becomes with a segment that was finished."""


class SegmentCommitter:
    """The writer's end of an index, under the writer's lock: the generation as it grows, and the open segment."""

    def __init__(
        self,
        layout: Layout,
        generation: Generation,
        codec: str,
        run: BuildSettings,
        sources: Sequence[str],
        clock: StageClock,
        on_commit: Callable[[], None],
    ) -> None:
        """Go on from ``generation``.

        Every commit notes ``sources`` and counts as writing by ``clock``; ``on_commit`` is told of every segment.
        """
        self.generation = generation
        self._layout, self._codec, self._run = layout, codec, run
        self._sources, self._clock, self._on_commit = sources, clock, on_commit
        self._segment: SegmentWriter | None = None
        self._opened = 0.0

    @property
    def rows(self) -> int:
        """Images in the open segment."""
        return 0 if self._segment is None else len(self._segment)

    def leaves_room(self, images: int) -> bool:
        """Say whether the batch after one of ``images`` is of the same segment: a kill must not cost more than one."""
        return self.rows + 2 * images <= self._run.segment_rows

    def store(self, generation: Generation) -> None:
        """Commit ``generation`` as it is."""
        sources = sorted({*generation.sources, *self._sources})
        self.generation = commit(self._layout, replace(generation, sources=tuple(sources)), CREATED_BY)

    def open(self) -> SegmentWriter:
        """Return the open segment, a new one where there is none."""
        if self._segment is None:
            name = segment_name(self._layout, f"{self.generation.number + 1:06d}")
            self._segment = SegmentWriter(self._layout, name, self._codec)
            self._opened = time.monotonic()
        return self._segment

    def run(
        self, batches: Generator[_Batch, None, None], add: Callable[[_Batch, SegmentWriter], None], grow: Grow
    ) -> None:
        """Give every batch and the open segment to ``add``; commit when due, at the end, and when interrupted."""
        try:
            for batch in batches:
                segment = self.open()
                add(batch, segment)
                overdue = time.monotonic() - self._opened >= self._run.commit_seconds
                if len(segment) >= self._run.segment_rows or overdue:
                    self.finish(grow)
            self.finish(grow)
        except NoSpaceError:
            if self._segment is not None:
                self._segment.discard()  # what can't be finished only takes room
            raise
        except BaseException:
            self.finish(grow)
            raise
        finally:
            batches.close()

    def finish(self, grow: Grow) -> None:
        """Commit the open segment, if any. Where this was interrupted, it can be called again and goes on."""
        segment = self._segment
        if segment is None:
            return
        if not segment.is_whole or not len(segment):
            segment.discard()
            self._segment = None
            return
        with self._clock.working(WRITE, 0):  # its images were counted as they were appended
            record = segment.finish()
            if record not in self.generation.segments[-1:]:  # else it was interrupted just after the commit
                self.store(grow(segment, record))
        self._segment = None
        self._on_commit()
