"""The stages of a build: in order, one batch ahead, and errors where they belong."""

import threading
import time
from collections.abc import Callable, Generator

import pytest
import torch

from retrieval.devices.prefetching import prefetch
from retrieval.encoding.batches import DecodingTurns
from retrieval.encoding.timing import COMPUTE, DECODE, WRITE, StageClock


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


def test_several_batches_are_computed_side_by_side_each_on_one_core() -> None:
    both, threads_seen, before = threading.Barrier(2), list[int](), torch.get_num_threads()

    def compute(number: int) -> int:
        both.wait(60)  # passes only while two batches are computed
        threads_seen.append(torch.get_num_threads())
        return number

    assert [number for number, _ in prefetch(numbers(6, []), compute, always, threads=2)] == list(range(6))
    assert threads_seen == [1] * 6
    later: list[int] = []
    new = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert [torch.get_num_threads(), *later] == [before] * 2, "other threads keep their number"


def test_side_by_side_it_still_ends_after_the_last_batch_and_closes() -> None:
    closed: list[str] = []
    assert [n for n, _ in prefetch(numbers(9, closed), lambda n: n, lambda n: n != 3, threads=3)] == [0, 1, 2, 3]
    assert closed == ["closed"]


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


def test_no_core_waits_for_a_slow_batch_or_for_the_caller() -> None:
    third = threading.Event()

    def compute(number: int) -> int:
        if number == 2:
            third.set()
        elif number == 0:
            assert third.wait(60)  # the other core goes on with the third batch meanwhile
        return number

    assert [number for number, _ in prefetch(numbers(6, []), compute, always, threads=2)] == list(range(6))


def _decode(turns: DecodingTurns, count: int, inside: Callable[[], object]) -> None:
    def decode() -> None:
        with turns.turn():
            inside()

    threads = [threading.Thread(target=decode) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def test_one_thread_decodes_once_a_batch_is_ready() -> None:
    turns, now, seen = DecodingTurns(batch_size=4), list[None](), list[int]()

    def inside() -> None:
        now.append(None)
        seen.append(len(now))
        time.sleep(0.01)
        now.pop()

    _decode(turns, 12, inside)
    assert seen[4:] == [1] * 8


def test_all_threads_decode_while_less_than_a_batch_is_ready() -> None:
    turns = DecodingTurns(batch_size=4)
    for count in (4, 3):
        together = threading.Barrier(count)
        _decode(turns, count, lambda wait=together.wait: wait(60))  # passes only while all of them decode
        assert not together.broken
        turns.hand_over(count)
