"""Time the stages of a build, which run side by side, and the parts of a search and of other work."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

DECODE, COMPUTE, WRITE = "decode", "compute", "write"
LEAST_SECONDS = 0.05  # of work: a speed from less time than this is noise


class StageClock:
    """Adds up the working time of every stage; safe to use from many threads."""

    def __init__(self, decoders: int) -> None:
        """Take the number of decoding threads; every other stage has one thread until :meth:`set_threads`."""
        self._threads = {DECODE: decoders, COMPUTE: 1, WRITE: 1}
        self._seconds = dict.fromkeys(self._threads, 0.0)
        self._images = dict.fromkeys(self._threads, 0)
        self._lock = threading.Lock()

    def set_threads(self, stage: str, threads: int) -> None:
        """Take the number of threads that work on ``stage``."""
        self._threads[stage] = threads

    @contextmanager
    def working(self, stage: str, images: int) -> Iterator[None]:
        """Count the time of the block as work of ``stage`` on that many images."""
        start = perf_counter()
        yield
        self.add(stage, images, perf_counter() - start)

    def add(self, stage: str, images: int, seconds: float) -> None:
        """Count work that the caller timed."""
        with self._lock:
            self._seconds[stage] += seconds
            self._images[stage] += images

    def speeds(self) -> dict[str, float]:
        """Return images a second by stage, as if no stage ever waited for another.

        A stage with less than :data:`LEAST_SECONDS` of work is left out.
        """
        with self._lock:
            return {
                stage: self._images[stage] * threads / self._seconds[stage]
                for stage, threads in self._threads.items()
                if self._images[stage] and self._seconds[stage] >= LEAST_SECONDS
            }


class SharedTiming:
    """Milliseconds by part of a search, for one of several queries that are searched together; or of one other work."""

    def __init__(self, queries: int) -> None:
        self._queries = queries
        self.ms: dict[str, float] = {}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by part, to three digits."""
        return {part: round(ms / 1e3, 3) for part, ms in self.ms.items()}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count the time of the block, divided by the number of queries, as spent on ``part``."""
        start = perf_counter()
        yield
        self.ms[part] = self.ms.get(part, 0.0) + 1e3 * (perf_counter() - start) / self._queries
