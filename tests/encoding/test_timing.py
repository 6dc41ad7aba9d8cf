"""The stages of a build: in order, one batch ahead, and errors where they belong."""

import threading
from collections.abc import Generator

import pytest

from retrieval.encoding.timing import COMPUTE, DECODE, WRITE, StageClock
from retrieval.indexing.pipeline import prefetch


def numbers(count: int, closed: list[str]) -> Generator[int, None, None]:
    try:
        yield from range(count)
    finally:
        closed.append("closed")


def always(_: int) -> bool:
    return True


def test_it_ends_after_the_batch_that_is_to_be_the_last_and_computes_no_further_one() -> None:
    computed: list[int] = []

    def compute(number: int) -> int:
        computed.append(number)
        return number

    closed: list[str] = []
    assert [number for number, _ in prefetch(numbers(4, closed), compute, lambda n: n != 1)] == [0, 1]
    assert (computed, closed) == ([0, 1], ["closed"])


def test_batches_keep_their_order() -> None:
    closed: list[str] = []
    assert list(prefetch(numbers(5, closed), lambda n: n * n, always)) == [(n, n * n) for n in range(5)]
    assert closed == ["closed"]


def test_the_next_batch_is_computed_while_one_is_written() -> None:
    begun = {n: threading.Event() for n in range(3)}

    def compute(number: int) -> int:
        begun[number].set()
        return number

    for number, _ in prefetch(numbers(3, []), compute, always):
        if number < 2:
            assert begun[number + 1].wait(60)  # before this one is done with
        if number == 0:
            assert not begun[2].is_set()  # never more than one ahead


def test_an_error_is_raised_in_its_place_and_the_batches_are_closed() -> None:
    def compute(number: int) -> int:
        if number == 2:
            raise ValueError("the third")
        return number

    closed: list[str] = []
    done: list[int] = []
    with pytest.raises(ValueError, match="the third"):
        done.extend(number for number, _ in prefetch(numbers(9, closed), compute, always))
    assert done == [0, 1]
    assert closed == ["closed"]


def test_speeds_count_work_and_not_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 2.0, 10.0, 11.0])
    monkeypatch.setattr("retrieval.encoding.timing.perf_counter", lambda: next(times))
    clock = StageClock(decoders=4)
    with clock.working(DECODE, 10):
        pass
    with clock.working(COMPUTE, 10):
        pass
    assert clock.speeds() == {DECODE: 20.0, COMPUTE: 10.0}
    assert WRITE not in clock.speeds()
    clock.add(WRITE, 1000, 1e-3)
    assert WRITE not in clock.speeds(), "a millisecond says nothing of a speed"
