"""The pool's threads: order, lost workers, errors, and an end in mid-work."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from retrieval.errors import ModelError, NoSpaceError, WorkerLostError
from retrieval.indexing.segment_job import FinishedSegment, SegmentJob
from retrieval.indexing.workers.pool import MOST_ATTEMPTS, WorkerPool
from retrieval.indexing.workers.worker import Job
from retrieval.models.modes import Outputs

JOB = SegmentJob(Path("x"), "job", [Path("a")] * 3, 0, Outputs())


class ThreadWorker:
    """A worker that does jobs by a function."""

    def __init__(self, do: Callable[[SegmentJob], FinishedSegment]) -> None:
        self._do, self.closed = do, False

    def do(self, job: Job) -> FinishedSegment:
        assert isinstance(job, SegmentJob)
        return self._do(job)

    def close(self) -> None:
        self.closed = True

    def kill(self) -> None:
        """A thread can't be killed."""


def jobs(count: int) -> list[SegmentJob]:
    return [replace(JOB, name=f"{number}", first_id=number) for number in range(count)]


def done(job: SegmentJob) -> FinishedSegment:
    return FinishedSegment(None, len(job.files), job.first_id)


def test_every_job_is_done_once() -> None:
    seen: list[str] = []
    pool = WorkerPool(lambda: ThreadWorker(lambda job: (seen.append(job.name), done(job))[1]), 3)
    found = [pool.submit(job) for job in jobs(20)]
    assert [future.result(20).next_id for future in found] == list(range(20))
    assert sorted(seen, key=int) == [str(number) for number in range(20)]
    pool.close()


def test_a_lost_workers_job_is_done_again_under_another_name() -> None:
    names: list[str] = []

    def lose_first(job: SegmentJob) -> FinishedSegment:
        names.append(job.name)
        if job.name == "1":
            raise WorkerLostError("gone")
        return done(job)

    opened: list[ThreadWorker] = []

    def opener() -> ThreadWorker:
        opened.append(ThreadWorker(lose_first))
        return opened[-1]

    pool = WorkerPool(opener, 1)
    assert [pool.submit(job).result(20).next_id for job in jobs(3)] == [0, 1, 2]
    assert names == ["0", "1", "1-2", "2"], "the files of the lost worker are in the way of the old name"
    assert [worker.closed for worker in opened] == [True, False]
    pool.close()


def test_a_job_that_loses_every_worker_fails() -> None:
    tries: list[str] = []

    def lose(job: SegmentJob) -> FinishedSegment:
        tries.append(job.name)
        raise WorkerLostError("memory ran out")

    pool = WorkerPool(lambda: ThreadWorker(lose), 2)
    with pytest.raises(WorkerLostError, match="memory ran out"):
        pool.submit(JOB).result(20)
    assert len(tries) == MOST_ATTEMPTS
    pool.close()


def test_an_error_of_a_job_is_its_own() -> None:
    def full(job: SegmentJob) -> FinishedSegment:
        if job.name == "1":
            raise NoSpaceError("the disk is full")
        return done(job)

    pool = WorkerPool(lambda: ThreadWorker(full), 2)
    first, second, third = (pool.submit(job) for job in jobs(3))
    with pytest.raises(NoSpaceError):
        second.result(20)
    assert (first.result(20).next_id, third.result(20).next_id) == (0, 2)
    pool.close()


@pytest.mark.parametrize("early", [True, False])
def test_workers_that_cannot_be_opened_fail_every_job(early: bool) -> None:
    gate = threading.Event()

    def broken() -> ThreadWorker:
        gate.wait(20)
        raise ModelError("no weights")

    pool = WorkerPool(broken, 2)
    if early:
        gate.set()
        time.sleep(0.05)
    found = [pool.submit(job) for job in jobs(4)]
    gate.set()
    for future in found:
        with pytest.raises(ModelError, match="no weights"):
            future.result(20)
    pool.close()


def test_closing_ends_a_worker_in_mid_work() -> None:
    begun, ended = threading.Event(), threading.Event()

    class Slow(ThreadWorker):
        def kill(self) -> None:
            ended.set()

    def wait(job: SegmentJob) -> FinishedSegment:
        begun.set()
        ended.wait(20)
        raise WorkerLostError("killed")

    pool = WorkerPool(lambda: Slow(wait), 1)
    future = pool.submit(JOB)
    begun.wait(20)
    pool.close()
    with pytest.raises(WorkerLostError):
        future.result(20)


def test_closing_waits_until_idle_workers_have_ended_side_by_side() -> None:
    together = threading.Barrier(3)

    class Polite(ThreadWorker):
        def close(self) -> None:
            together.wait(20)  # of workers that end one after another the first would wait for ever
            self.closed = True

    opened: list[Polite] = []

    def opener() -> Polite:
        opened.append(Polite(done))
        return opened[-1]

    pool = WorkerPool(opener, 3)
    while len(opened) < 3:
        time.sleep(0.01)
    pool.close()
    assert [worker.closed for worker in opened] == [True] * 3
