"""Compute batches ahead of their use, in threads."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from retrieval.devices.threads import use_one_core

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def prefetch(
    batches: Generator[_In, None, None],
    compute: Callable[[_In], _Out],
    goes_on: Callable[[_In], bool],
    threads: int = 1,
) -> Generator[tuple[_In, _Out], None, None]:
    """Yield every batch with the result of ``compute``, in order; compute the next ones while the caller uses one.

    As many batches are computed ahead as there are ``threads``. Several threads use one core each, and one more batch
    waits for the first of them that is done: batches take unequal time. Ends early after the
    first batch for which ``goes_on`` returns False: with one thread, no batch is computed that nobody asks for. An
    error of ``compute`` is raised at its own batch. On a GPU ``compute`` only launches work, so the next batch is
    queued before the current one ends.
    """
    alone, ahead = (use_one_core, threads + 1) if threads > 1 else (None, 1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="compute", initializer=alone)
    waiting: deque[tuple[_In, Future[_Out]]] = deque()

    def submit(most: int) -> None:
        while len(waiting) < most and (batch := next(batches, None)) is not None:
            waiting.append((batch, pool.submit(compute, batch)))

    try:
        submit(ahead)
        while waiting:
            batch, future = waiting.popleft()
            result = future.result()
            if goes_on(batch):
                submit(ahead)
            else:
                waiting.clear()
            yield batch, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # complete batches are committed without waiting for the rest
        batches.close()
