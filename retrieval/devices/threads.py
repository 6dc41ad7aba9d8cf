"""Threads of a CPU that compute side by side, each on one core."""

import threading

import torch

MOST = 8  # threads side by side: each holds a batch, and decoding has to keep up


def side_by_side() -> int:
    """Return how many threads may compute side by side: as many as torch would use for one operation, :data:`MOST`."""
    return min(MOST, torch.get_num_threads())


def use_one_core() -> None:
    """Let torch's operations run in the calling thread alone; other threads keep their number.

    torch.set_num_threads changes the calling thread, and the number that threads begin with. A second thread sets the
    latter back.
    """
    before = torch.get_num_threads()  # The first call in a thread would overwrite what was set before it.
    torch.set_num_threads(1)
    restoring = threading.Thread(target=_begin_with, args=(before,))
    restoring.start()
    restoring.join()


def _begin_with(threads: int) -> None:
    torch.get_num_threads()
    torch.set_num_threads(threads)
