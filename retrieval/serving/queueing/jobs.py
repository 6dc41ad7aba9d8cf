"""One piece of work for a computing thread, and the future that its request waits for."""

import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from retrieval.progress import Cancellation
from retrieval.search.engine import Engine
from retrieval.search.filters.filter import Filter
from retrieval.search.queries.query import Query
from retrieval.serving.errors import DeadlineError
from retrieval.settings import SearchSettings

Work = Callable[[Engine], Any]


class OpenedIndex(Protocol):
    """An index that work can be done on."""

    def use(self, work: Work) -> Any:
        """Do some work on the newest generation."""


@dataclass(eq=False, kw_only=True)
class Job:
    """Work that waits or runs. ``deadline`` is a time of :func:`time.monotonic`."""

    index: OpenedIndex
    deadline: float
    future: "Future[Any]" = field(default_factory=Future)
    cancel: Cancellation = field(default_factory=Cancellation)
    made: float = field(default_factory=time.monotonic)

    def is_wanted(self) -> bool:
        """Say whether somebody still waits; a job past its deadline is answered with a DeadlineError."""
        if self.cancel.is_requested or self.future.cancelled():
            self.future.cancel()
            return False
        if time.monotonic() > self.deadline:
            self.fail(DeadlineError("the deadline passed while the request waited"))
            return False
        return True

    def answer(self, value: Any) -> None:
        """Give the request its answer, unless nobody waits any more."""
        with suppress(InvalidStateError):
            self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Give the request an error, unless nobody waits any more."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(eq=False, kw_only=True)
class SearchJob(Job):
    """One question that was read. Jobs with the same ``key`` are answered together."""

    question: Query
    mode: str | None
    choices: SearchSettings
    where: Filter | None = None

    @property
    def key(self) -> Hashable:
        """The index, mode, choices and filter, which questions that are answered together share."""
        return id(self.index), self.mode, repr(self.choices), self.where


@dataclass(eq=False, kw_only=True)
class CallJob(Job):
    """Any other work, such as a score or an explanation; it is done alone."""

    work: Work


class AllCancelled(Cancellation):
    """A cancellation that is requested once all of ``jobs`` are no longer wanted."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__()
        self._jobs = jobs

    @property
    def is_requested(self) -> bool:
        """Whether nobody waits any more."""
        now = time.monotonic()
        return all(job.cancel.is_requested or now > job.deadline for job in self._jobs)
