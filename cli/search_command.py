"""``diffsim-search``: find the images of an index that are most like one image or several."""

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from cli import options
from cli.advice import sentence_of
from cli.option_groups import EngineOptions, FormOptions, QuestionOptions, SearchOptions, Speech, expand_groups
from cli.output import Form, meant_index, note_sentences, print_results
from cli.questions import mode_weights, questions_of, split_texts
from cli.search import options as search_options
from cli.search.filter_options import FilterOptions
from cli.search.list_options import ListOptions
from cli.search.opening import connected, opened
from cli.terminal.printing import say
from cli.terminal.process import HELP, Speaker, run, stopping, work_offline
from cli.terminal.progress import ProgressBar
from retrieval.errors import DiffSimError, UsageError
from retrieval.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cli.output import Answer
    from cli.questions import Question
    from retrieval.search.engine import Engine
    from retrieval.search.explaining.explanation import BoardExplanation, ImageExplanation
    from retrieval.search.queries.query import QueryInput
    from retrieval.search.results import Result, Results
    from retrieval.settings import SearchChoices

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)
MOST_EXPLAINED = 10  # results of one picture: a row each


@app.command(context_settings=HELP)
@expand_groups
def search(
    queries: options.Queries = None,
    *,
    index: options.Index = None,
    server: search_options.Server = None,
    update: search_options.Update = False,
    mode: options.Mode = None,
    lists: ListOptions,
    asked: QuestionOptions,
    how: SearchOptions,
    among: FilterOptions,
    sheet: options.Sheets = None,
    explain: options.Explain = None,
    forms: FormOptions,
    engine_options: EngineOptions,
    speech: Speech,
    version: options.Version = False,
) -> None:
    """Find the images that are most like the query: in style, by the same subject, or in meaning."""
    form, speaker = forms.form(), speech.speaker()
    lists.check(form, bool(sheet or explain), asked)
    named, texts = split_texts(queries or [])
    if not (named or lists.has_others):
        named, texts = list(queries or []), []  # texts alone ask
    questions = questions_of(lists.queries(named), asked, texts)
    choices = how.choices(mode_weights(asked))
    work_offline(engine_options.offline)
    place = None if server else meant_index(index)
    _check_files(sheet or [], explain, questions, how)
    if place is not None and update:
        from cli.search.updating import bring_up_to_date

        bring_up_to_date(place, engine_options, speaker)
    count = 2 if lists.is_stream else len(questions)
    engine = connected(server or "", index, update) if place is None else opened(place, engine_options.settings(count))
    if lists.is_stream:
        from cli.search.streaming import stream

        stream(engine, questions, texts, lists, mode, among, choices, speaker)
        return
    answers = _Answers(questions)
    try:
        answers.locate(engine)
        _search(engine, answers, mode, among, choices, speaker)
        if explain is not None:
            _explain(engine, answers, explain, speaker)
    finally:  # also when searches were stopped
        answers.print(form, speaker)
    for file in (sheet or []) if answers.found else ():
        _draw(file, answers.found, speaker)
    answers.exit_if_any_failed()


def _check_files(
    sheets: "Sequence[Path]", explain: Path | None, questions: "Sequence[Question]", how: SearchOptions
) -> None:
    """Raise the errors of files that can't be drawn before the search."""
    if not sheets and explain is None:
        return
    from retrieval.drawing.sheet_file import check_picture, check_sheet

    for file in sheets:
        check_sheet(file)
    if explain is None:
        return
    check_picture(explain)
    if len(questions) > 1:
        raise UsageError("--explain takes one query")
    if not questions[0].images:
        raise UsageError("--explain splits a score of AAS, which has no text: name an image")
    if how.no_rerank or how.similarity != "cosine":
        raise UsageError("--explain splits exact cosine scores: leave out --no-rerank and --similarity")


def _search(
    engine: "Engine",
    answers: "_Answers",
    mode: str | None,
    among: FilterOptions,
    choices: "SearchChoices",
    speaker: Speaker,
) -> None:
    count = len(answers.questions)
    state = f"searching with {count} queries" if answers.are_several else "searching"
    bar = ProgressBar(speaker, state)
    with stopping(answers.kept), bar:
        searches = engine.search_many(
            answers.asked,
            mode,
            on_progress=bar.show,
            on_unusable=answers.pass_over if answers.are_several else None,
            where=among.filter(),
            **choices,
        )
        for query, results in searches:
            answers.take(query, results)
            if answers.are_several:
                bar.show(Progress("search", len(answers.given), count))


class _Answers:
    """The queries in the order in which they were asked, each with its results or its error."""

    def __init__(self, questions: "Sequence[Question]") -> None:
        self.questions = questions
        self.are_several = len(questions) > 1
        self.asked: list[QueryInput] = []
        self.given: dict[int, Answer] = {}  # by the query's position
        self.explanations: dict[int, ImageExplanation | BoardExplanation] = {}  # by the result's id
        self._positions: dict[int, int] = {}  # by the query's identity: a file may be asked for twice

    def locate(self, engine: "Engine") -> None:
        """Find the images of each query. With several queries, one without an image gets an error."""
        for position, question in enumerate(self.questions):
            try:
                query = question.find(engine)
            except UsageError as error:
                if not self.are_several:
                    raise
                self._fail(position, error)
            else:
                self._positions[id(query)] = position
                self.asked.append(query)

    def pass_over(self, query: "QueryInput", error: DiffSimError) -> None:
        self._fail(self._positions[id(query)], error)

    def _fail(self, position: int, error: DiffSimError) -> None:
        self.given[position] = (self.questions[position].name, error)
        say(f"error: {sentence_of(error)}")

    def take(self, query: "QueryInput", results: "Results") -> None:
        self.given[self._positions[id(query)]] = (query, results)

    @property
    def found(self) -> "list[tuple[QueryInput, Results]]":
        """Queries with their results, without those that failed."""
        in_order = (self.given[position] for position in sorted(self.given))
        return [(query, given) for query, given in in_order if not isinstance(given, DiffSimError)]

    def exit_if_any_failed(self) -> None:
        if self.are_several and len(self.found) < len(self.questions):
            raise typer.Exit(1)

    def kept(self) -> str:
        return f"{len(self.given)} of {len(self.questions)} queries are answered" if self.are_several else ""

    def print(self, form: Form, speaker: Speaker) -> None:
        """Print the notes and results so far."""
        if not self.given:
            return
        for note in dict.fromkeys(note for _, results in self.found for note in note_sentences(results)):
            speaker.note(note)
        for _, results in self.found:
            speaker.detail(
                f"{results.mode}: " + ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in results.timing_ms.items())
            )
        explained = {number: found.to_dict() for number, found in self.explanations.items()}
        print_results([self.given[position] for position in sorted(self.given)], form, self.are_several, explained)


def _explain(engine: "Engine", answers: "_Answers", file: Path, speaker: Speaker) -> None:
    from retrieval.search.explaining.explanation_sheet import draw_explanations

    ((image, results),) = answers.found
    explained = results[:MOST_EXPLAINED]
    bar = ProgressBar(speaker, "explaining")
    with stopping(answers.kept), bar:
        for number, found in enumerate(_explanations(engine, image, explained, results.mode)):
            answers.explanations[explained[number].id] = found
            bar.show(Progress("explain", number + 1, len(explained)))
    if not explained:
        speaker.say(f"drew no {file}: there are no results to explain")
        return
    draw_explanations(file, list(answers.explanations.values()))
    speaker.say(f"drew {file}" + (f", of the first {MOST_EXPLAINED} results" if len(results) > MOST_EXPLAINED else ""))


def _explanations(
    engine: "Engine", query: "QueryInput", explained: "Sequence[Result]", mode: str
) -> "Iterator[ImageExplanation | BoardExplanation]":
    from retrieval.search.queries.query import as_query

    if as_query(query).is_plain:
        return engine.explain_all(query, explained, mode)
    return engine.explain_board(query, explained, mode)


def _draw(sheet: Path, found: "Sequence[tuple[QueryInput, Results]]", speaker: Speaker) -> None:
    from retrieval.search.results_sheet import draw_results

    left_out = draw_results(sheet, found)
    speaker.say(f"drew {sheet}" + (f", without the last {left_out} results" if left_out else ""))


def main() -> NoReturn:
    """Run ``diffsim-search``."""
    run(app)
