"""Give older items the tensors and vectors that they miss: computed, or taken from the cache of searches."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.row_locations import batched
from index_store.segment_writer import SegmentWriter
from index_store.tensors.cache import CacheKey, TensorCache
from retrieval.images.discovery import Paths
from retrieval.indexing.committer import SegmentCommitter
from retrieval.indexing.fill_job import FillSegmentJob, fill_segment_job
from retrieval.indexing.missing import FillJob, Missing
from retrieval.indexing.pipeline import Pipeline
from retrieval.indexing.segment_job import FinishedSegment, SegmentLimit, write_segment
from retrieval.indexing.workers.driver import Driver
from retrieval.indexing.workers.pool import WorkerPool

COPIED_ROWS = 16  # copied from the cache at a time

_Batch = TypeVar("_Batch")


@dataclass(frozen=True)
class Filled:
    """The result of a filler."""

    items: int = 0  # that got something
    unavailable: int = 0  # that still miss something: their files are gone, or have changed


class Filler:
    """Writes segments that hold missing outputs of older items. The caller holds the writer's lock."""

    def __init__(self, pipeline: Pipeline, committer: SegmentCommitter, pool: WorkerPool | None = None) -> None:
        """Take the models, and the workers that compute in place of this process; None: it computes itself."""
        self._pipeline, self._committer, self._pool = pipeline, committer, pool
        self._unavailable = 0

    def run(self, reader: IndexReader, missing: Missing) -> Filled:
        """Compute everything that is ``missing`` in ``reader``."""
        completed = np.zeros(len(reader), bool)
        for job in missing.jobs:
            if self._pool is None:
                compute = partial(self._compute, reader, job, completed)
                self._committer.commit_all(len(job.rows), self._pipeline.batch, compute)
            else:
                driver = Driver(reader.layout, self._committer, self._pool, self._pipeline.batch)
                driver.run(len(job.rows), partial(_fill_job, reader, job), {}, partial(self._note, reader, completed))
        return Filled(int(completed.sum()), missing.unavailable + self._unavailable)

    def adopt(self, reader: IndexReader, cache: TensorCache, mode: str, digest: str) -> int:
        """Move tensors that searches computed from the cache into the index; return the number of items.

        ``mode`` is the one under whose name the tensors are stored.
        """
        rows, taken = _only_cached(reader, cache, mode, digest), dict[int, CacheKey]()

        def write(name: str, part: slice) -> FinishedSegment:
            writer = self._writer(reader.layout, name)

            def append(batch: NDArray[np.int64]) -> int:
                keys = {item.id: CacheKey(mode, digest, item.sha256) for item in reader.items(batch)}
                taken.update((number, key) for number, key in keys.items() if _fill_from(cache, number, key, writer))
                return len(batch)

            return self._write(writer, self._copy_batches(rows[part]), append)

        self._committer.commit_all(len(rows), COPIED_ROWS, write)
        for key in taken.values():
            cache.drop(key)
        return len(taken)

    def _compute(
        self, reader: IndexReader, job: FillJob, completed: NDArray[np.bool_], name: str, part: slice
    ) -> FinishedSegment:
        """Compute the outputs of ``job`` for some of its rows, and mark the finished ones in ``completed``."""
        run, tally = self._committer.run, self._committer.tally
        work = replace(_fill_job(reader, job, name, part), commit_seconds=run.commit_seconds)
        found = fill_segment_job(work, self._pipeline, tally.of_job(), self._committer.cancel)
        self._note(reader, completed, found)
        return found

    def _note(self, reader: IndexReader, completed: NDArray[np.bool_], found: FinishedSegment) -> None:
        completed[np.searchsorted(reader.ids, np.array(found.filled, np.int64))] = True
        self._unavailable += found.images - len(found.filled)

    def _writer(self, layout: Layout, name: str) -> SegmentWriter:
        return SegmentWriter(layout, name, self._pipeline.models.codec.name)

    def _limit(self) -> SegmentLimit:
        return SegmentLimit(self._committer.run.commit_seconds, self._committer.cancel)

    def _copy_batches(self, rows: NDArray[np.int64]) -> Generator[NDArray[np.int64], None, None]:
        """Yield ``rows`` in small batches until the segment must end."""
        limit = self._limit()
        for batch in batched(rows, COPIED_ROWS):
            goes_on = limit.allows_more()
            yield batch
            if not goes_on:
                return

    def _write(
        self, writer: SegmentWriter, batches: Generator[_Batch, None, None], append: Callable[[_Batch], int]
    ) -> FinishedSegment:
        return write_segment(writer, batches, append, self._pipeline.clock)


def _only_cached(reader: IndexReader, cache: TensorCache, mode: str, digest: str) -> NDArray[np.int64]:
    """Return the rows of items whose tensors are in the cache and not in the index."""
    cached = np.array(reader.catalog.with_content(cache.images(mode, digest)), np.int64)
    return cached[~reader.has_tensors(mode)[cached]]


def _fill_from(cache: TensorCache, number: int, key: CacheKey, writer: SegmentWriter) -> bool:
    """Append the cached tensors of the item ``number``; return whether there were any."""
    found = cache.get(key)
    if found is not None:
        writer.fill([number], {}, {key.mode: {array: rows[None] for array, rows in found.items()}})
    return found is not None


def _fill_job(reader: IndexReader, job: FillJob, name: str, part: slice) -> FillSegmentJob:
    """Return the work of one segment: the items of some rows of ``job``."""
    rows = job.rows[part]
    digests = [item.sha256 for item in reader.items(rows)]
    files = Paths(reader.uris(rows))
    return FillSegmentJob(reader.layout.root, name, files, reader.ids[rows].tolist(), digests, job.outputs)
