"""The stages of a build, which run at the same time, and the parts of a search: what each takes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

DECODE, COMPUTE, WRITE = "decode", "compute", "write"
LEAST_SECONDS = 0.05  # of work, before a stage's speed is told


class StageClock:
    """Counts what every stage worked for; safe to use from many threads."""

    def __init__(self, decoders: int) -> None:
        """Take the number of threads that decode; the other stages have one."""
        self._threads = {DECODE: decoders, COMPUTE: 1, WRITE: 1}
        self._seconds = dict.fromkeys(self._threads, 0.0)
        self._images = dict.fromkeys(self._threads, 0)
        self._lock = threading.Lock()

    @contextmanager
    def working(self, stage: str, images: int) -> Iterator[None]:
        """Count the time inside as work of ``stage`` on so many ``images``."""
        start = perf_counter()
        yield
        self.add(stage, images, perf_counter() - start)

    def add(self, stage: str, images: int, seconds: float) -> None:
        """Count work that was timed elsewhere."""
        with self._lock:
            self._seconds[stage] += seconds
            self._images[stage] += images

    def speeds(self) -> dict[str, float]:
        """Return images a second by stage, as if the others never kept it waiting.

        Stages that have not worked for :data:`LEAST_SECONDS` are left out: what that says is noise.
        """
        with self._lock:
            return {
                stage: self._images[stage] * threads / self._seconds[stage]
                for stage, threads in self._threads.items()
                if self._images[stage] and self._seconds[stage] >= LEAST_SECONDS
            }


class SharedTiming:
    """What several queries spend together, as one query's share."""

    def __init__(self, queries: int) -> None:
        self._queries = queries
        self.ms: dict[str, float] = {}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count the time inside as spent on ``part``."""
        start = perf_counter()
        yield
        self.ms[part] = self.ms.get(part, 0.0) + 1e3 * (perf_counter() - start) / self._queries
