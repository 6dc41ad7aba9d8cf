"""The driver of a build by workers: cuts jobs, keeps the workers busy, commits segments in the order of their ids."""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, replace
from typing import Any

from index_store.ids import new_segment_name
from index_store.layout import Layout
from index_store.remote.pull import receive_segment
from index_store.segment_file import seal_segment
from retrieval.indexing.committer import SegmentCommitter
from retrieval.indexing.segment_job import FinishedSegment
from retrieval.indexing.workers.pool import WorkerPool
from retrieval.indexing.workers.worker import Job
from retrieval.progress import Cancellation

FIRST_BATCHES = 4  # of a worker's first job, from which its speed is measured
LAST_BATCHES = 2  # of the last jobs: others wait for the last one, but each segment costs a commit
JOBS_A_WORKER = 3  # that are running, queued, or waiting for an earlier one's commit: the rest stays unplanned
POLL_SECONDS = 0.2  # between looks for a request to stop


MakeJob = Callable[[str, slice], Job]
"""Makes the job of one segment of that name, from a range of the images."""


def rows_of_next_job(most: int, left: int, workers: int, batch: int) -> int:
    """Return the images of the next job, ``most`` at most; the last ones are small, so that no worker ends alone.

    A job takes half of a worker's share of the images that are ``left``, and LAST_BATCHES batches at least.
    """
    share = -(-left // (2 * workers * batch)) * batch
    return min(most, max(LAST_BATCHES * batch, share))


@dataclass(frozen=True)
class _Running:
    job: Job
    future: "Future[FinishedSegment]"


class Driver:
    """Commits the segments of a pool of workers. The caller holds the writer's lock."""

    def __init__(self, layout: Layout, committer: SegmentCommitter, pool: WorkerPool, batch: int) -> None:
        """Take the images of a batch, which cuts jobs at the same positions as a build without workers."""
        self._layout, self._committer, self._pool, self._batch = layout, committer, pool, batch
        self._rows = FIRST_BATCHES * batch  # images of the next job
        self._number = 0
        self._stem = new_segment_name(layout, committer.generation.number, "w")

    def run(
        self,
        count: int,
        make: MakeJob,
        replaced: Mapping[str, int],
        on_commit: Callable[[FinishedSegment], None] = lambda segment: None,
    ) -> None:
        """Have ``count`` images encoded, and commit every segment.

        Segments that are finished while an earlier one is committed are committed together: a commit lists all
        segments of the index, so one for each would hold up many workers. Stopped by Ctrl-C, a cancellation or an
        error, it commits the segments that are finished and in order.

        Args:
            count: of the images.
            make: makes the jobs, in the order of the images.
            replaced: as in ``SegmentCommitter.commit_all``.
            on_commit: called with each segment after its commit.

        Raises:
            WorkerLostError: a job has lost several workers.
            CancelledError: the work was asked to stop.
        """
        running: deque[_Running] = deque()
        start = 0
        try:
            while start < count or running:
                while start < count and len(running) < JOBS_A_WORKER * self._pool.size:
                    rows = rows_of_next_job(self._rows, count - start, self._pool.size, self._batch)
                    part = slice(start, min(start + rows, count))
                    job = make(self._next_name(), part)
                    running.append(_Running(job, self._pool.submit(job)))
                    start = part.stop
                wait_for(running[0].future, self._committer.cancel)
                for segment in self._commit_finished(running, replaced):
                    on_commit(segment)
        except BaseException:
            self._pool.close()
            self._commit_finished(running, replaced)
            raise

    def _next_name(self) -> str:
        self._number += 1
        return f"{self._stem}{self._number:06d}"

    def _commit_finished(self, running: deque[_Running], replaced: Mapping[str, int]) -> list[FinishedSegment]:
        """Take the leading jobs that are done from ``running``, up to one that failed, and commit their segments."""
        sealed: list[FinishedSegment] = []
        try:
            while running and running[0].future.done() and not running[0].future.exception():
                sealed.append(self._sealed(running.popleft().future.result()))
        finally:
            self._committer.commit(sealed, replaced)
        return sealed

    def _sealed(self, segment: FinishedSegment) -> FinishedSegment:
        """Take a segment over from its worker, and let its speed decide how long the next job is."""
        run = self._committer.run
        self._committer.tally.advance(segment.images, segment.record.rejects if segment.record else 0)
        speed = segment.images / max(segment.seconds, 1e-3)
        batches = min(run.segment_rows, speed * run.commit_seconds) // self._batch
        self._rows = max(self._batch, int(batches) * self._batch)
        if segment.record is None:
            return segment
        receive_segment(self._layout, segment.record)
        return replace(segment, record=seal_segment(self._layout, segment.record, segment.next_id))


def wait_for(future: "Future[Any]", cancel: Cancellation | None) -> Any:
    """Return the result of a worker's job; a CancelledError once ``cancel`` is requested."""
    while True:
        if cancel is not None:
            cancel.check()
        try:
            return future.result(POLL_SECONDS)
        except NotYet:
            if future.done():
                raise
