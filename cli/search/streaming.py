"""Answer many questions one after another: each answer becomes a JSON line at once, so memory stays bounded."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import typer

from cli.advice import sentence_of
from cli.output import note_sentences
from cli.search.filter_options import FilterOptions
from cli.search.line_file import LineFile
from cli.search.list_options import ListOptions
from cli.terminal.printing import say, show_json
from cli.terminal.process import Speaker, stopping
from cli.terminal.progress import ProgressBar
from retrieval.errors import DiffSimError, UsageError
from retrieval.progress import Progress

if TYPE_CHECKING:
    from cli.questions import Question
    from retrieval.search.engine import Engine
    from retrieval.search.queries.query import Query, QueryInput
    from retrieval.search.results import Results
    from retrieval.settings import SearchChoices

SCHEMA = 1
Write = Callable[[Mapping[str, Any]], None]


@dataclass
class _Asked:
    """One question that the engine has taken and not answered yet."""

    about: Mapping[str, Any]  # the start of the line's ``query``
    query: "Query | None" = None  # None: it was not found
    error: DiffSimError | None = None


class _Stream:
    """Hands questions to the engine and writes their answers in the order in which they were asked."""

    def __init__(self, write: Write) -> None:
        self._write, self._waiting = write, deque[_Asked]()
        self.written, self.failed = 0, 0
        self.notes = dict[str, None]()

    def taken(
        self, engine: "Engine", questions: "Iterator[tuple[Mapping[str, Any], Callable[[Engine], QueryInput]]]"
    ) -> "Iterator[Query]":
        """Yield the questions that are found; the others wait for their turn with an error."""
        from retrieval.search.queries.query import Query, as_query

        for about, find in questions:
            try:
                found = find(engine)
            except UsageError as error:
                self._waiting.append(_Asked(about, error=error))
            else:
                query = as_query(found) if not isinstance(found, Query) else found
                self._waiting.append(_Asked(about, query))
                yield query

    def pass_over(self, query: "QueryInput", error: DiffSimError) -> None:
        next(asked for asked in self._waiting if asked.query is query).error = error

    def take(self, query: "QueryInput", results: "Results") -> None:
        """Write the answer to ``query``, after the errors of questions before it."""
        while (asked := self._waiting.popleft()).query is not query:
            self._write_error(asked)
        self.notes.update(dict.fromkeys(note_sentences(results)))
        whole = results.to_dict()
        about = {**asked.about, **whole["query"]}
        self._write({"schema": SCHEMA, "query": about, "mode": results.mode, "results": whole["results"]})
        self.written += 1

    def end(self) -> None:
        while self._waiting:
            self._write_error(self._waiting.popleft())

    def _write_error(self, asked: _Asked) -> None:
        assert asked.error is not None
        self.failed += 1
        self.written += 1
        say(f"error: {sentence_of(asked.error)}")
        self._write(
            {"schema": SCHEMA, "query": asked.about, "error": sentence_of(asked.error), "kind": asked.error.kind}
        )


def stream(
    engine: "Engine",
    questions: "Sequence[Question]",
    texts: Sequence[str],
    lists: ListOptions,
    mode: str | None,
    among: FilterOptions,
    choices: "SearchChoices",
    speaker: Speaker,
) -> None:
    """Answer ``questions``, or ask with every item narrowed by ``texts``, and write one JSON line for each.

    Raises:
        typer.Exit: with 1, if questions could not be asked.
    """
    total = len(engine) if lists.every else len(questions)
    file = None
    if lists.out is not None:
        file = LineFile(lists.out, _header(engine, questions, texts, lists, mode, among, choices))
    done = 0 if file is None else file.answered
    if done:
        speaker.say(f"{lists.out} has {done} of {total} answers; going on")
    each = _items(engine, done, texts) if lists.every else _typed(questions, done)
    stream = _Stream(_print_line if file is None else file.write)
    bar = ProgressBar(speaker, f"searching with {total - done} queries")

    def kept() -> str:
        goes_on = f" in {lists.out}; the same command goes on" if file is not None else ""
        return f"{done + stream.written} of {total} queries are answered{goes_on}"

    with closing(file) if file is not None else nullcontext(), stopping(kept), bar:
        searches = engine.search_many(
            stream.taken(engine, each),
            mode,
            on_progress=bar.show,
            on_unusable=stream.pass_over,
            where=among.filter(),
            **choices,
        )
        for query, results in searches:
            stream.take(query, results)
            bar.show(Progress("search", stream.written, total - done))
        stream.end()
    for note in stream.notes:
        speaker.note(note)
    if stream.failed:
        raise typer.Exit(1)


def _print_line(values: Mapping[str, Any]) -> None:
    show_json(values, indent=None)


def _items(
    engine: "Engine", start: int, texts: Sequence[str]
) -> "Iterator[tuple[Mapping[str, Any], Callable[[Engine], QueryInput]]]":
    from retrieval.search.queries.query import Query

    for number, path in islice(engine.items(), start, None):
        asked = Query((path,), texts=texts)

        def find(engine: "Engine", asked: Query = asked) -> Query:
            return asked

        yield {"id": number, "path": path}, find


def _typed(
    questions: "Sequence[Question]", start: int
) -> "Iterator[tuple[Mapping[str, Any], Callable[[Engine], QueryInput]]]":
    for question in questions[start:]:
        yield {"asked": question.name}, question.find


def _header(
    engine: "Engine",
    questions: "Sequence[Question]",
    texts: Sequence[str],
    lists: ListOptions,
    mode: str | None,
    among: FilterOptions,
    choices: "SearchChoices",
) -> dict[str, Any]:
    """Return what a file of answers says that it answers; the same command makes the same."""
    index = engine.info()
    names = "\0".join(question.name for question in questions).encode("utf-8", "surrogateescape")
    given = {name: value for name, value in vars(among).items() if value is not None}
    return {
        "schema": SCHEMA,
        "index": {name: index[name] for name in ("path", "model", "items", "generation")},
        "mode": mode or engine.modes[0],
        "queries": "all" if lists.every else hashlib.sha256(names).hexdigest(),
        "texts": list(texts),
        "settings": dict(choices),
        "filter": {
            name: str(value) if not isinstance(value, list) else [*map(str, value)] for name, value in given.items()
        },
    }
