"""A thread's number of cores is its own, and threads of one core each share the parts of a work."""

import threading

import pytest
import torch

from retrieval.devices.threads import ALONE, CoreThreads, core_count, use_cores


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


def test_threads_of_one_core_do_every_part_and_leave_the_callers_number_alone() -> None:
    before = core_count()
    found = CoreThreads(3).map(lambda part: (part, core_count()), range(20))
    assert found == [(part, 1) for part in range(20)]
    assert core_count() == before


def test_one_thread_is_the_callers() -> None:
    assert ALONE.map(lambda _: threading.get_ident(), range(2)) == [threading.get_ident()] * 2


@pytest.mark.parametrize("threads", [ALONE, CoreThreads(2)], ids=["alone", "two"])
def test_the_error_of_a_part_is_raised(threads: CoreThreads) -> None:
    def fails(part: int) -> None:
        if part >= 4:
            raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part 4"):
        threads.map(fails, range(9))
