"""A pool of workers, each driven by a thread of its own. A lost worker is replaced, and its job done by another."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from queue import PriorityQueue
from typing import Any

from retrieval.errors import WorkerLostError
from retrieval.indexing.workers.worker import Job, Worker

MOST_ATTEMPTS = 3  # of one job, and of opening one worker
END_SECONDS = 5.0  # for workers that were asked to end
OpenWorker = Callable[[], Worker]
"""Starts a worker and waits until it has loaded its models; WorkerLostError if it ended before."""


@dataclass(order=True)
class _Task:
    number: int  # jobs that were submitted first are done first, also when they are repeated
    job: Job | None = field(compare=False)  # None: the thread ends
    future: "Future[Any]" = field(compare=False, default_factory=Future)
    attempt: int = field(compare=False, default=1)


class WorkerPool:
    """Workers that take jobs in the order in which they were submitted."""

    def __init__(self, open_worker: OpenWorker, size: int) -> None:
        """Start ``size`` threads; each opens a worker before it takes its first job."""
        self.size = size
        self._open = open_worker
        self._tasks: PriorityQueue[_Task] = PriorityQueue()
        self._submitted = 0
        self._failure: BaseException | None = None  # why no worker can be opened
        self._closed = False
        self._changed = threading.Condition()
        self._workers: set[Worker] = set()
        self._busy: set[Worker] = set()
        threads = [threading.Thread(target=self._serve, name=f"worker-{n}", daemon=True) for n in range(size)]
        for thread in threads:
            thread.start()

    def submit(self, job: Job) -> "Future[Any]":
        """Queue a job.

        The future raises WorkerLostError once the job has lost :data:`MOST_ATTEMPTS` workers, and the error of opening
        workers if none can be opened.
        """
        task = _Task(self._submitted, job)
        self._submitted += 1
        self._tasks.put(task)
        if self._failure is not None:
            self._fail_all(self._failure)
        return task.future

    def each(self, jobs: Iterable[Job]) -> Iterator[Any]:
        """Yield the answers to ``jobs`` in their order; one job waits beside those in hand. See :meth:`submit`."""
        waiting: deque[Future[Any]] = deque()
        for job in jobs:
            waiting.append(self.submit(job))
            if len(waiting) > self.size:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def close(self) -> None:
        """End every worker, in mid-work at once; jobs that are not done are dropped."""
        with self._changed:
            self._closed = True
            busy = list(self._busy)
        for _ in range(self.size):
            self._tasks.put(_Task(-1, None))
        for worker in busy:
            worker.kill()
        with self._changed:  # each thread ends its own worker, so that many end side by side
            self._changed.wait_for(lambda: not self._workers, END_SECONDS)
            left = list(self._workers)
        for worker in left:
            worker.kill()

    def _serve(self) -> None:
        worker: Worker | None = None
        while not self._closed:
            worker = worker or self._opened()
            task = self._tasks.get()
            if worker is None or task.job is None:
                if task.job is not None:
                    self._tasks.put(task)
                break
            worker = self._do(task, task.job, worker)
        self._drop(worker)

    def _do(self, task: _Task, job: Job, worker: Worker) -> Worker | None:
        """Do a task; return the worker if it lives."""
        with self._changed:
            if self._closed:
                return worker
            self._busy.add(worker)
        name = job.name if task.attempt == 1 else f"{job.name}-{task.attempt}"  # the lost worker's files are in the way
        try:
            task.future.set_result(worker.do(replace(job, name=name)))
        except WorkerLostError as error:
            self._drop(worker)
            if task.attempt >= MOST_ATTEMPTS or self._closed:
                task.future.set_exception(error)
            else:
                self._tasks.put(replace(task, attempt=task.attempt + 1))
            return None
        except BaseException as error:
            task.future.set_exception(error)
        finally:
            with self._changed:
                self._busy.discard(worker)
        return worker

    def _opened(self) -> Worker | None:
        """Open a worker; return None if that can't be done, and fail every job if no other worker lives."""
        error: BaseException | None = None
        for _ in range(MOST_ATTEMPTS):
            try:
                worker = self._open()
            except WorkerLostError as lost:
                error = lost
            except BaseException as other:
                error = other
                break
            else:
                with self._changed:
                    self._workers.add(worker)
                return worker
            if self._closed:
                return None
        with self._changed:
            others_live = bool(self._workers)
        if error is not None and not others_live:
            self._failure = error
            self._fail_all(error)
        return None

    def _fail_all(self, error: BaseException) -> None:
        while not self._tasks.empty():
            task = self._tasks.get()
            if task.job is not None and not task.future.done():
                task.future.set_exception(error)

    def _drop(self, worker: Worker | None) -> None:
        if worker is not None:
            worker.close()
            with self._changed:
                self._workers.discard(worker)
                self._changed.notify_all()
