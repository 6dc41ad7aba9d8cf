"""The driver of a build by workers: cuts jobs, keeps the workers busy, commits segments in the order of their ids."""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, replace
from pathlib import Path

from index_store.ids import new_segment_name
from index_store.layout import Layout
from index_store.remote.pull import receive_segment
from index_store.segment_file import seal_segment
from retrieval.indexing.committer import SegmentCommitter
from retrieval.indexing.segment_job import FinishedSegment, SegmentJob
from retrieval.indexing.workers.pool import WorkerPool
from retrieval.models.modes import Outputs

FIRST_BATCHES = 4  # of a worker's first job, from which its speed is measured
JOBS_A_WORKER = 3  # that are running, queued, or waiting for an earlier one's commit: the rest stays unplanned
POLL_SECONDS = 0.2  # between looks for a request to stop


def rows_of_next_job(most: int, left: int, workers: int, batch: int) -> int:
    """Return the images of the next job, ``most`` at most; the last ones are small, so that no worker ends alone.

    A job takes half of a worker's share of the images that are ``left``, and FIRST_BATCHES batches at least.
    """
    share = -(-left // (2 * workers * batch)) * batch
    return min(most, max(FIRST_BATCHES * batch, share))


@dataclass(frozen=True)
class _Running:
    job: SegmentJob
    future: "Future[FinishedSegment]"


class Driver:
    """Commits the segments of a pool of workers. The caller holds the writer's lock."""

    def __init__(self, layout: Layout, committer: SegmentCommitter, pool: WorkerPool, batch: int) -> None:
        """Take the images of a batch, which cuts jobs at the same positions as a build without workers."""
        self._layout, self._committer, self._pool, self._batch = layout, committer, pool, batch
        self._rows = FIRST_BATCHES * batch  # images of the next job
        self._number = 0
        self._stem = new_segment_name(layout, committer.generation.number, "w")

    def run(self, files: Sequence[Path], outputs: Outputs, replaced: Mapping[str, int]) -> None:
        """Have ``files`` encoded, and commit every segment; ``replaced`` as in ``SegmentCommitter.commit_all``.

        Stopped by Ctrl-C, a cancellation or an error, it commits the segments that are finished and in order.

        Raises:
            WorkerLostError: a job has lost several workers.
            CancelledError: the work was asked to stop.
        """
        running: deque[_Running] = deque()
        first_id, start = self._committer.generation.next_id, 0
        try:
            while start < len(files) or running:
                while start < len(files) and len(running) < JOBS_A_WORKER * self._pool.size:
                    rows = rows_of_next_job(self._rows, len(files) - start, self._pool.size, self._batch)
                    part = files[start : start + rows]
                    job = self._job(part, first_id + start, outputs)
                    running.append(_Running(job, self._pool.submit(job)))
                    start += len(part)
                self._wait(running[0].future)
                self._commit(running.popleft(), replaced)
        except BaseException:
            self._pool.close()
            while running and running[0].future.done() and not running[0].future.exception():
                self._commit(running.popleft(), replaced)
            raise

    def _job(self, files: Sequence[Path], first_id: int, outputs: Outputs) -> SegmentJob:
        self._number += 1
        name = f"{self._stem}{self._number:06d}"
        return SegmentJob(self._layout.root, name, files, first_id, outputs, sources=self._committer.sources)

    def _wait(self, future: "Future[FinishedSegment]") -> None:
        while True:
            if self._committer.cancel is not None:
                self._committer.cancel.check()
            try:
                future.result(POLL_SECONDS)
            except NotYet:
                if not future.done():
                    continue
            return

    def _commit(self, done: _Running, replaced: Mapping[str, int]) -> None:
        segment, run = done.future.result(), self._committer.run
        self._committer.tally.advance(segment.images, segment.record.rejects if segment.record else 0)
        speed = segment.images / max(segment.seconds, 1e-3)
        batches = min(run.segment_rows, speed * run.commit_seconds) // self._batch
        self._rows = max(self._batch, int(batches) * self._batch)
        if segment.record is not None:
            receive_segment(self._layout, segment.record)
            record = seal_segment(self._layout, segment.record, segment.next_id)
            segment = replace(segment, record=record)
        self._committer.commit(segment, replaced)
