"""``diffsim-search``: ask an index for the neighbours of one image or of several."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from cli import options
from cli.output import Form, choose_form, print_results
from cli.progress import TaskProgress
from cli.running import run, say, speaker, work_offline
from index_store.layout import find_index
from retrieval.errors import DiffSimError
from retrieval.settings import EngineSettings, SearchSettings, parse_bytes, parse_encoders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retrieval.queries import ImageInput
    from retrieval.results import Results

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
    encoders: options.Encoders = None,
    device: options.Device = HERE.device,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    version: options.Version = False,
) -> None:
    """Return the neighbours of images: in their style, of the same thing, or about the same."""
    form = choose_form(as_json=as_json, as_jsonl=as_jsonl, paths=paths, null=null)
    work_offline(offline)
    place = find_index(index, os.environ, Path.cwd())
    from retrieval.engine import Engine

    settings = EngineSettings(
        device=device,
        weights=None if weights is None else str(weights),
        encoders={} if encoders is None else parse_encoders(encoders),
        offline=offline,
        max_cache=HERE.max_cache if max_cache is None else parse_bytes(max_cache),
        memory=0 if len(queries) == 1 else None,  # this process ends with the search
    )
    engine = Engine.open(place, settings)
    images = [sys.stdin.buffer.read() if query == STDIN else engine.locate(query) for query in queries]
    found: list[tuple[ImageInput, Results]] = []
    unusable: list[ImageInput] = []
    try:
        with TaskProgress(quiet=quiet, bar=True) as progress:
            searches = engine.search_many(
                images,
                mode,
                partial(progress.show, "computing candidates"),
                partial(_pass_over, unusable) if len(images) > 1 else None,
                k=k,
                candidates=candidates,
                exhaustive=exhaustive,
                rerank=not no_rerank,
                similarity=similarity,
                min_score=min_score,
                exclude_query=exclude_query,
            )
            for image, results in searches:
                found.append((image, results))
                if len(images) > 1:
                    progress.show("searching", len(found) + len(unusable), len(images))
    finally:
        _print(found, form, is_list=len(images) > 1)
    if sheet is not None:
        from retrieval.show import write_results_sheet

        write_results_sheet(sheet, found)
        speaker(quiet)(f"drawn: {sheet}")
    if unusable:
        raise typer.Exit(1)


def _pass_over(unusable: "list[ImageInput]", image: "ImageInput", error: DiffSimError) -> None:
    unusable.append(image)
    say(f"error: {error}")


def _print(found: "Sequence[tuple[ImageInput, Results]]", form: Form, is_list: bool) -> None:
    """Print what was found, also by searches that were stopped."""
    if not found:
        return
    for note in dict.fromkeys(note for _, results in found for note in results.notes):
        say(f"note: {note}")
    print_results([results for _, results in found], form, is_list)


def main() -> NoReturn:
    """Run ``diffsim-search``."""
    run(app)
