"""``diffsim-search``: ask an index for the neighbours of one image or of several."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from cli import options
from cli.output import Form, choose_form, note_sentences, print_results
from cli.parsing import parse_bytes, parse_encoders
from cli.process import run, say, speaker, stopping, work_offline
from cli.progress import IMAGES, QUERIES, TaskProgress
from index_store.locate import find_index
from retrieval.errors import DiffSimError, UsageError
from retrieval.settings import EngineSettings, SearchSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.output import Answer
    from retrieval.search.engine import Engine
    from retrieval.search.query import ImageInput
    from retrieval.search.results import Results

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
HERE, DEFAULTS = EngineSettings(), SearchSettings()
STDIN = "-"


@app.command()
def search(
    queries: options.Queries,
    index: options.Index = None,
    mode: options.Mode = None,
    k: options.Top = DEFAULTS.k,
    candidates: options.Candidates = DEFAULTS.candidates,
    exhaustive: options.Exhaustive = False,
    no_rerank: options.NoRerank = False,
    similarity: options.Similarity = DEFAULTS.similarity,
    min_score: options.MinScore = None,
    exclude_query: options.ExcludeQuery = False,
    sheet: options.Sheet = None,
    as_json: options.AsJson = False,
    as_jsonl: options.AsJsonl = False,
    paths: options.Paths = False,
    null: options.Null = False,
    max_cache: options.MaxCache = None,
    weights: options.Weights = None,
    encoders: options.EncoderFolders = None,
    device: options.Device = HERE.device,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    version: options.Version = False,
) -> None:
    """Return the neighbours of images: in their style, of the same thing, or about the same."""
    form = choose_form(as_json=as_json, as_jsonl=as_jsonl, paths=paths, null=null)
    if queries.count(STDIN) > 1:
        raise UsageError(f"{STDIN} (stdin) may be given once")
    work_offline(offline)
    place = find_index(index, os.environ, Path.cwd())
    from retrieval.search.engine import Engine

    settings = EngineSettings(
        device=device,
        weights=None if weights is None else str(weights),
        encoders={} if encoders is None else parse_encoders(encoders),
        offline=offline,
        max_cache=HERE.max_cache if max_cache is None else parse_bytes(max_cache),
        memory=0 if len(queries) == 1 else None,  # this process ends with the search
    )
    if sheet is not None:
        from retrieval.drawing.sheet_file import check_sheet

        check_sheet(sheet)
    engine = Engine.open(place, settings)
    answers = _Answers(queries)
    try:
        answers.locate(engine)
        state = "searching" if len(queries) == 1 else f"searching with {len(queries)} queries"
        with stopping(answers.kept), TaskProgress(quiet, counted=QUERIES, state=state) as progress:
            searches = engine.search_many(
                answers.images,
                mode,
                on_progress=lambda step: progress.show("computing candidates", step.done, step.total, IMAGES),
                on_unusable=answers.pass_over if answers.are_several else None,
                k=k,
                candidates=candidates,
                exhaustive=exhaustive,
                rerank=not no_rerank,
                similarity=similarity,
                min_score=min_score,
                exclude_query=exclude_query,
            )
            for image, results in searches:
                answers.take(image, results)
                if answers.are_several:
                    progress.show("searching", len(answers.given), len(queries))
    finally:
        answers.print(form)
    if sheet is not None and answers.found:
        _draw(sheet, answers.found, quiet)
    if answers.are_several and len(answers.found) < len(queries):
        raise typer.Exit(1)


class _Answers:
    """The queries in the order they were asked, and what became of each: results, or an error."""

    def __init__(self, queries: "Sequence[str]") -> None:
        self.queries = queries
        self.are_several = len(queries) > 1
        self.images: list[ImageInput] = []
        self.given: dict[int, Answer] = {}  # by the query's position
        self._positions: dict[int, int] = {}  # by the image's identity: the same file may be asked for twice

    def locate(self, engine: "Engine") -> None:
        """Find out which image each query means; of several, one that means none is passed over."""
        for position, query in enumerate(self.queries):
            try:
                image = sys.stdin.buffer.read() if query == STDIN else Path(engine.locate(query))
            except UsageError as error:
                if not self.are_several:
                    raise
                self._fail(position, error)
            else:
                self._positions[id(image)] = position
                self.images.append(image)

    def pass_over(self, image: "ImageInput", error: DiffSimError) -> None:
        self._fail(self._positions[id(image)], error)

    def _fail(self, position: int, error: DiffSimError) -> None:
        self.given[position] = (self.queries[position], error)
        say(f"error: {error}")

    def take(self, image: "ImageInput", results: "Results") -> None:
        self.given[self._positions[id(image)]] = (image, results)

    @property
    def found(self) -> "list[tuple[ImageInput, Results]]":
        """Queries with their results, without those that failed."""
        in_order = (self.given[position] for position in sorted(self.given))
        return [(image, given) for image, given in in_order if not isinstance(given, DiffSimError)]

    def kept(self) -> str:
        return f"{len(self.given)} of {len(self.queries)} queries are answered" if self.are_several else ""

    def print(self, form: Form) -> None:
        """Print what was found, also by searches that were stopped."""
        if not self.given:
            return
        for note in dict.fromkeys(note for _, results in self.found for note in note_sentences(results)):
            say(f"note: {note}")
        print_results([self.given[position] for position in sorted(self.given)], form, self.are_several)


def _draw(sheet: Path, found: "Sequence[tuple[ImageInput, Results]]", quiet: bool) -> None:
    from retrieval.search.results_sheet import draw_results

    left_out = draw_results(sheet, found)
    speaker(quiet)(f"drawn: {sheet}" + (f", without the {left_out} farthest neighbours" if left_out else ""))


def main() -> NoReturn:
    """Run ``diffsim-search``."""
    run(app)
