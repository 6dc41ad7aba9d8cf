"""The computing threads: batches, bounds, deadlines, cancelled requests and the end."""

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from retrieval.errors import ModelError
from retrieval.serving.errors import BusyError, DeadlineError, StoppingError
from retrieval.serving.metrics import ServerMetrics
from retrieval.serving.queueing.computing_threads import ComputingThreads
from retrieval.serving.queueing.jobs import CallJob, SearchJob
from retrieval.settings import SearchSettings

SOON = 10.0  # seconds


class Bench:
    """An index whose engine writes down which questions it was asked together."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.gate = threading.Event()
        self.gate.set()

    def use(self, work: Any) -> Any:
        return work(self)

    def search_many(self, asked: list[Any], mode: str | None, cancel: Any = None, **choices: Any) -> Iterator[Any]:
        assert self.gate.wait(SOON)
        self.batches.append(list(asked))
        if "bad" in asked:
            raise ModelError("numbers that are not finite")
        for question in asked:
            yield question, SimpleNamespace(mode="m", timing_ms={"embed": 1.0}, computed=0, cached=0, name=question)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def worker() -> Iterator[ComputingThreads]:
    made = ComputingThreads(most=6, batch=4, gather_seconds=0.05, metrics=ServerMetrics())
    made.start()
    yield made
    made.close()


def job(bench: Bench, question: str, seconds: float = SOON, k: int = 10) -> SearchJob:
    question_read: Any = question
    return SearchJob(
        index=bench, deadline=time.monotonic() + seconds, question=question_read, mode=None, choices=SearchSettings(k=k)
    )


def submit(worker: ComputingThreads, jobs: list[SearchJob]) -> None:
    with worker.admitted(time.monotonic() + SOON, len(jobs)) as ticket:
        worker.submit(ticket, list(jobs))


def test_questions_with_the_same_choices_are_answered_together(worker: ComputingThreads, bench: Bench) -> None:
    bench.gate.clear()
    first = job(bench, "first")
    submit(worker, [first])
    while worker._waiting:
        time.sleep(0.001)
    others = [job(bench, "a"), job(bench, "b", k=3), job(bench, "c"), job(bench, "d", k=3)]
    submit(worker, others)
    bench.gate.set()
    assert [each.future.result(SOON).name for each in [first, *others]] == ["first", "a", "b", "c", "d"]
    assert bench.batches == [["first"], ["a", "c"], ["b", "d"]]


def test_a_batch_waits_for_a_question_that_is_being_read(worker: ComputingThreads, bench: Bench) -> None:
    deadline = time.monotonic() + SOON
    with worker.admitted(deadline) as late:
        submit(worker, [early := job(bench, "early")])
        time.sleep(0.01)
        worker.submit(late, [follower := job(bench, "late")])
        early.future.result(SOON), follower.future.result(SOON)
    assert bench.batches == [["early", "late"]]


def test_a_question_at_fault_fails_alone(worker: ComputingThreads, bench: Bench) -> None:
    jobs = [job(bench, name) for name in ("a", "bad", "c")]
    submit(worker, jobs)
    assert jobs[0].future.result(SOON).name == "a"
    assert jobs[2].future.result(SOON).name == "c"
    with pytest.raises(ModelError):
        jobs[1].future.result(SOON)


def test_the_queue_is_bounded(worker: ComputingThreads, bench: Bench) -> None:
    deadline = time.monotonic() + SOON
    with worker.admitted(deadline, 4), worker.admitted(deadline, 2):
        with pytest.raises(BusyError) as caught, worker.admitted(deadline):
            pass
        assert int(caught.value.headers["Retry-After"]) >= 1
    with worker.admitted(deadline):
        pass


def test_a_request_that_would_wait_beyond_its_deadline_is_told_at_once(worker: ComputingThreads, bench: Bench) -> None:
    worker._seconds = 1.0
    deadline = time.monotonic() + SOON
    with worker.admitted(deadline, 2), pytest.raises(BusyError) as caught, worker.admitted(time.monotonic() + 1.5):
        pass
    assert caught.value.seconds == 2


def test_late_and_cancelled_questions_are_not_computed(worker: ComputingThreads, bench: Bench) -> None:
    bench.gate.clear()
    submit(worker, [first := job(bench, "first")])
    jobs = [job(bench, "late", 0.01, k=2), job(bench, "gone", k=2), job(bench, "kept", k=2)]
    submit(worker, jobs)
    jobs[1].cancel.request()
    time.sleep(0.02)
    bench.gate.set()
    assert jobs[2].future.result(SOON).name == "kept"
    assert first.future.result(SOON).name == "first"
    with pytest.raises(DeadlineError):
        jobs[0].future.result(SOON)
    assert jobs[1].future.cancelled()
    assert ["kept"] in bench.batches


def test_closing_answers_everything_that_was_taken(bench: Bench) -> None:
    worker = ComputingThreads(most=40, batch=4, gather_seconds=0, metrics=ServerMetrics())
    worker.start()
    bench.gate.clear()
    jobs = [job(bench, str(number)) for number in range(10)]
    submit(worker, jobs)
    called: list[int] = []
    call = CallJob(index=bench, deadline=time.monotonic() + SOON, work=lambda _: called.append(1))
    with worker.admitted(call.deadline) as ticket:
        worker.submit(ticket, [call])
    ending = threading.Thread(target=worker.close)
    ending.start()
    time.sleep(0.01)
    with pytest.raises(StoppingError), worker.admitted(time.monotonic() + SOON):
        pass
    bench.gate.set()
    ending.join(SOON)
    assert [each.future.result(0).name for each in jobs] == [str(number) for number in range(10)]
    assert called == [1]


def test_threads_share_what_waits(bench: Bench) -> None:
    threads, both = ComputingThreads(most=40, batch=8, gather_seconds=0, metrics=ServerMetrics()), threading.Barrier(2)
    meeting = [CallJob(index=bench, deadline=time.monotonic() + SOON, work=lambda _: both.wait(SOON)) for _ in range(2)]
    jobs = [job(bench, str(number)) for number in range(6)]
    with threads.admitted(time.monotonic() + SOON, 8) as ticket:
        threads.submit(ticket, [*jobs, *meeting])
    threads.start(2)
    threads.start(2)
    assert {each.future.result(SOON) for each in meeting} == {0, 1}, "two threads met"
    assert [each.future.result(SOON).name for each in jobs] == [str(number) for number in range(6)]
    threads.close()
    assert sorted(len(batch) for batch in bench.batches)[-1] == 3, "half of six"


def test_a_batch_is_as_large_as_the_first_deadline_allows(worker: ComputingThreads, bench: Bench) -> None:
    worker._seconds = 1.0
    deadline = time.monotonic() + SOON
    jobs = [job(bench, name, seconds) for name, seconds in (("a", 4.5), ("b", 9), ("c", 9), ("d", 9))]
    with worker.admitted(deadline, 4) as ticket:
        worker.submit(ticket, jobs)
    for each in jobs:
        each.future.result(SOON)
    assert bench.batches[0] == ["a", "b"], "two seconds of work, half of those left"
