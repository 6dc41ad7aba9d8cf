"""Ask the computing threads on behalf of one request: admit it, read its images, wait for its answers."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from fastapi import Request

from retrieval.errors import DiffSimError
from retrieval.search.engine import Engine
from retrieval.search.queries.query import Query
from retrieval.search.results import Results
from retrieval.serving.asking.questions import QuestionReader, check_limit
from retrieval.serving.asking.request_models import (
    IndexFields,
    QuestionFields,
    SearchManyRequest,
    SearchRequest,
)
from retrieval.serving.errors import DeadlineError
from retrieval.serving.indexes.served_index import ServedIndex
from retrieval.serving.queueing.jobs import CallJob, Job, SearchJob
from retrieval.serving.queueing.waiting import wait_for
from retrieval.serving.server import Server

T = TypeVar("T")


def server_of(request: Request) -> Server:
    """Return the server that answers a request."""
    server: Server = request.app.state.server
    return server


@dataclass(frozen=True)
class Asking:
    """One request: the index that it asks, when it must be answered, and the reader of its images."""

    request: Request
    server: Server
    index: ServedIndex
    deadline: float
    reader: QuestionReader

    @classmethod
    def of(cls, request: Request, fields: IndexFields, parts: Sequence[bytes] = ()) -> "Asking":
        """Begin to answer a request; errors for an unknown index, and a deadline beyond the limit."""
        server = server_of(request)
        return cls(
            request, server, server.index(fields.index), server.deadline(fields.deadline_ms), server.reader(parts)
        )

    async def search(self, asked: SearchRequest) -> Results:
        """Answer one question."""
        (found,) = await self.search_many([asked], asked)
        if isinstance(found, DiffSimError):
            raise found
        return found

    async def search_many(
        self, questions: Sequence[QuestionFields], asked: SearchRequest | SearchManyRequest
    ) -> list[Results | DiffSimError]:
        """Answer several questions; each has its results or its error."""
        check_limit("queries", self.server.settings.limits.queries, len(questions), "a request of {} questions")
        settings = self.reader.choices(asked, len(self.index.engine))
        where = asked.filter()
        with self.server.worker.admitted(self.deadline, len(questions)) as ticket:
            read = await asyncio.gather(*(self._question(question) for question in questions))
            jobs = {
                place: SearchJob(
                    index=self.index,
                    deadline=self.deadline,
                    question=found,
                    mode=asked.mode,
                    choices=settings,
                    where=where,
                )
                for place, found in enumerate(read)
                if isinstance(found, Query)
            }
            self.server.worker.submit(ticket, list(jobs.values()))
            answers = dict(zip(jobs, await self._answers(list(jobs.values())), strict=True))
        return [_known(answers.get(place, found)) for place, found in enumerate(read)]

    async def call(self, read: Callable[[Engine], T], work: Callable[[Engine, T], Any]) -> Any:
        """Read images with ``read`` beside the computing threads, and do ``work`` with them on one of these."""
        with self.server.worker.admitted(self.deadline) as ticket:
            images = await self.in_reader(lambda: read(self.index.engine))
            job = CallJob(index=self.index, deadline=self.deadline, work=lambda engine: work(engine, images))
            self.server.worker.submit(ticket, [job])
            (answer,) = await self._answers([job])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def _question(self, question: QuestionFields) -> Query | DiffSimError:
        try:
            return await self.in_reader(lambda: self.reader.read(self.index.engine, question))
        except DeadlineError:
            raise
        except DiffSimError as error:
            return error

    async def in_reader(self, read: Callable[[], T]) -> T:
        """Do some work beside the event loop and the computing threads."""
        left = self.deadline - time.monotonic()
        found = asyncio.get_running_loop().run_in_executor(self.server.readers, read)
        try:
            return await asyncio.wait_for(found, max(0.001, left))
        except TimeoutError as error:
            raise DeadlineError("the deadline passed while images were read") from error

    async def _answers(self, jobs: Sequence[Job]) -> list[Any]:
        return await wait_for(jobs, self.request.is_disconnected) if jobs else []


def _known(found: Any) -> Results | DiffSimError:
    """Return results or an error that is meant for people; any other error is a bug, and raised."""
    if isinstance(found, Results | DiffSimError):
        return found
    raise found


def results_json(results: Results) -> dict[str, Any]:
    """Return the JSON of the command line, and its notes with the words for what would help."""
    return {**results.to_dict(), "note_details": [asdict(note) for note in results.notes]}
