"""A thread's number of cores is its own: other threads, and those to come, keep theirs."""

import threading

import torch

from retrieval.devices.threads import core_count, use_cores


def test_the_number_of_cores_is_the_threads_own() -> None:
    found: list[int] = []

    def here() -> None:
        found.append(core_count())

    def switches() -> None:
        torch.get_num_threads()
        for count in (1, 2, 1):
            use_cores(count, 3)
            here()
            other = threading.Thread(target=here)
            other.start()
            other.join()

    before = core_count()
    torch.set_num_threads(3)
    thread = threading.Thread(target=switches)
    thread.start()
    thread.join()
    assert found == [1, 3, 2, 3, 1, 3]
    assert core_count() == 3
    torch.set_num_threads(before)
