"""Wait for jobs without blocking the event loop: until they are done, too late, or nobody wants them any more."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from retrieval.errors import CancelledError
from retrieval.serving.errors import DeadlineError
from retrieval.serving.queueing.jobs import Job

LOOK_SECONDS = 0.25  # between looks whether the client is still there


async def wait_for(jobs: Sequence[Job], is_gone: Callable[[], Awaitable[bool]]) -> list[Any]:
    """Return each job's answer or its exception.

    Raises:
        DeadlineError: the deadline of the first job passed.
        CancelledError: the client has gone.
    """
    futures = [asyncio.wrap_future(job.future) for job in jobs]
    pending = set(futures)
    try:
        while pending:
            left = jobs[0].deadline - time.monotonic()
            if left <= 0:
                raise DeadlineError("the deadline passed before there was an answer")
            _, pending = await asyncio.wait(pending, timeout=min(left, LOOK_SECONDS))
            if pending and await is_gone():
                raise CancelledError("the client has gone")
    finally:
        for job, future in zip(jobs, futures, strict=True):
            if not future.done():
                job.cancel.request()
                future.cancel()
    return [future.exception() or future.result() for future in futures]
