"""Threads of a CPU that compute side by side, each on a number of cores."""

import threading

import torch

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
