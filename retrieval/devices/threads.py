"""Threads of a CPU that compute side by side, each on a number of cores."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")

MOST = 8  # threads side by side: each holds a batch, and decoding has to keep up


def side_by_side() -> int:
    """Return how many threads may compute side by side: as many as torch would use for one operation, :data:`MOST`."""
    return min(MOST, core_count())


def core_count() -> int:
    """Return how many cores one operation of torch uses in the calling thread."""
    return torch.get_num_threads()


def use_one_core() -> None:
    """Let torch's operations run in the calling thread alone; other threads keep their number."""
    use_cores(1, core_count())  # The first call in a thread would overwrite what was set before it.


def use_cores(count: int, others: int) -> None:
    """Let torch's operations in the calling thread use ``count`` cores; threads to come begin with ``others``.

    torch.set_num_threads changes the calling thread, and the number that threads begin with. A second thread sets the
    latter back.
    """
    if core_count() == count:
        return
    torch.set_num_threads(count)
    restoring = threading.Thread(target=_begin_with, args=(others,))
    restoring.start()
    restoring.join()


def _begin_with(threads: int) -> None:
    torch.get_num_threads()
    torch.set_num_threads(threads)


class CoreThreads:
    """Threads of one core each that share the parts of a search; safe to use from many threads, but not from its own.

    Torch's own threads meet after every operation and wait busily for the last. Where other programs use the cores, a
    search of small tensors then takes ten times as long; parts that each thread does alone are not held up.
    """

    def __init__(self, count: int) -> None:
        """Take the number of threads; with one, the calling thread does everything as it is."""
        self._pool = ThreadPoolExecutor(count, "diffsim-core", initializer=use_one_core) if count > 1 else None

    def map(self, work: Callable[[_Part], _Result], parts: Sequence[_Part]) -> list[_Result]:
        """Return what ``work`` returns for every part; once all are done, raise the error of the first that failed."""
        if self._pool is None:
            return [work(part) for part in parts]
        begun = [self._pool.submit(work, part) for part in parts]
        wait(begun)
        return [done.result() for done in begun]


ALONE = CoreThreads(1)
"""No threads: whoever calls does all parts, with torch's own threads."""
