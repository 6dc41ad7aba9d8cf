"""Measure the memory and the time of this process."""

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

import psutil

SAMPLE_SECONDS = 0.01  # between two looks at the memory of the process


class PeakMemory:
    """The most main memory that this process takes while the context is open, from samples in a thread."""

    def __init__(self) -> None:
        self.bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        process = psutil.Process()
        while True:
            self.bytes = max(self.bytes, int(process.memory_info().rss))
            if self._ended.wait(SAMPLE_SECONDS):
                return


def median_ms(calls: Sequence[Callable[[], object]]) -> float:
    """Return the median milliseconds of all calls but the first, which warms up."""
    spent = []
    for call in calls:
        began = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - began))
    return statistics.median(spent[1:])
