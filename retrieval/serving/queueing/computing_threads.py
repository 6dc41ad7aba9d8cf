"""The computing threads: they gather questions of several requests into batches, and keep the queue short.

Most models have hooks that one pass uses at a time, so one thread computes for all indexes. Small models of a CPU
compute side by side: each thread has one core, and the engine's own threads share the scoring. Images are decoded
elsewhere before.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from retrieval.devices.threads import use_one_core
from retrieval.search.engine import Engine
from retrieval.search.results import Results
from retrieval.serving.errors import BusyError, StoppingError
from retrieval.serving.metrics import ServerMetrics
from retrieval.serving.queueing.jobs import AllCancelled, CallJob, Job, SearchJob

logger = logging.getLogger(__name__)

NEWEST_SHARE = 0.2  # of the newest batch in the mean time of a question
SHARE_OF_DEADLINE = 0.5  # of the time left, that a batch may take


@dataclass(eq=False)
class Ticket:
    """A request's place among those that are read, wait or are computed."""

    count: int  # of its jobs
    is_reading: bool = True


class ComputingThreads:
    """The threads and their queue. A request is admitted, read, submitted as jobs, and leaves with its answers."""

    def __init__(self, most: int, batch: int, gather_seconds: float, metrics: ServerMetrics) -> None:
        """Take the most jobs that are admitted at once, and how many are gathered for how long."""
        self._most, self._batch, self._gather = most, batch, gather_seconds
        self._metrics = metrics
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._admitted = self._reading = 0
        self._seconds = 0.0  # of one question in one thread, a moving mean; 0: not known
        self._closed = False
        self._threads: list[threading.Thread] = []

    def start(self, threads: int = 1) -> None:
        """Begin to work with so many threads in all; a later call may add some."""
        with self._changed:
            while len(self._threads) < threads and not self._closed:
                begun = threading.Thread(target=self._run, name=f"diffsim-worker-{len(self._threads)}", daemon=True)
                self._threads.append(begun)
                begun.start()

    def close(self) -> None:
        """Take no more work, and return once everything submitted is answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    @contextmanager
    def admitted(self, deadline: float, count: int = 1) -> Iterator[Ticket]:
        """Count a request of ``count`` jobs until it has its answers.

        Raises:
            BusyError: too many jobs are admitted, or the wait would be longer than the deadline.
            StoppingError: the server is stopping.
        """
        ticket = self._admit(deadline, count)
        try:
            yield ticket
        finally:
            with self._changed:
                self._admitted -= count
                self._metrics.queue.set(self._admitted)
                self._read(ticket)

    def _admit(self, deadline: float, count: int) -> Ticket:
        with self._changed:
            if self._closed:
                raise StoppingError("the server is stopping")
            each = self._seconds / max(1, len(self._threads))
            wait, own = each * self._admitted, each * count
            if self._admitted + count > self._most or (self._admitted and time.monotonic() + wait + own > deadline):
                self._metrics.refused.inc()
                raise BusyError(
                    f"the server answers or keeps waiting {self._admitted} of {self._most} questions already",
                    math.ceil(wait),
                )
            self._admitted += count
            self._reading += 1
            self._metrics.queue.set(self._admitted)
            return Ticket(count)

    def submit(self, ticket: Ticket, jobs: Sequence[Job]) -> None:
        """Queue the jobs of an admitted request."""
        with self._changed:
            self._waiting.extend(jobs)
            self._read(ticket)

    def _read(self, ticket: Ticket) -> None:
        if ticket.is_reading:
            ticket.is_reading = False
            self._reading -= 1
            self._changed.notify_all()

    def _run(self) -> None:
        while batch := self._next():
            if len(self._threads) > 1:
                use_one_core()
            begun, wanted = time.monotonic(), [job for job in batch if job.is_wanted()]
            self._serve(wanted)
            with self._changed:
                if any(isinstance(job, SearchJob) for job in wanted):
                    mean = (time.monotonic() - begun) / len(wanted)
                    self._seconds += NEWEST_SHARE * (mean - self._seconds) if self._seconds else mean

    def _next(self) -> list[Job]:
        """Wait for work, and return the jobs to do together; none once the worker is closed and everything is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or (self._closed and not self._reading))
            if not self._waiting:
                return []
            first = self._waiting.popleft()
            if not isinstance(first, SearchJob):
                return [first]
            batch: list[Job] = [first]
            self._gather_into(batch, first)
            return batch

    def _gather_into(self, batch: list[Job], first: SearchJob) -> None:
        """Add this thread's share of waiting jobs of the same key; wait a moment for those that are being read."""
        until = time.monotonic() + self._gather
        while True:
            alike = [job for job in self._waiting if isinstance(job, SearchJob) and job.key == first.key]
            share = math.ceil((len(alike) + len(batch)) / len(self._threads))
            most = min(self._batch, share, self._in_time([*batch, *alike]))
            for job in alike[: max(0, most - len(batch))]:
                self._waiting.remove(job)
                batch.append(job)
            left = until - time.monotonic()
            if len(batch) >= self._batch or not self._reading or left <= 0:
                return
            self._changed.wait(left)

    def _in_time(self, jobs: Sequence[Job]) -> int:
        """Return how many jobs may be done together: their answers come at the end, and the first deadline counts."""
        left = min(job.deadline for job in jobs) - time.monotonic()
        return max(1, int(SHARE_OF_DEADLINE * left / self._seconds)) if self._seconds else self._batch

    def _serve(self, batch: Sequence[Job]) -> None:
        if not batch:
            return
        try:
            first = batch[0]
            if isinstance(first, CallJob):
                first.answer(first.index.use(first.work))
            else:
                self._search([job for job in batch if isinstance(job, SearchJob)])
        except BaseException as error:
            if len(batch) > 1:  # the one that is at fault must not fail the others
                for job in batch:
                    self._serve([job] if job.is_wanted() else [])
                return
            batch[0].fail(error)
            if not isinstance(error, Exception):
                raise

    def _search(self, jobs: Sequence[SearchJob]) -> None:
        first, cancel = jobs[0], AllCancelled(jobs)

        def search(engine: Engine) -> list[Results]:
            asked, choices, where = [job.question for job in jobs], asdict(first.choices), first.where
            return [found for _, found in engine.search_many(asked, first.mode, cancel=cancel, where=where, **choices)]

        begun = time.monotonic()
        found = first.index.use(search)
        self._metrics.searched([begun - job.made for job in jobs], found)
        for job, results in zip(jobs, found, strict=True):
            job.answer(results)
