"""``diffsim-search``: ask an index for the neighbours of an image."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

import typer

from cli import options
from cli.output import choose_form, print_results
from cli.progress import TaskProgress
from cli.running import run, say, speaker, work_offline
from index_store.layout import find_index
from retrieval.settings import EngineSettings, SearchSettings, parse_bytes, parse_encoders

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
HERE, DEFAULTS = EngineSettings(), SearchSettings()
STDIN = "-"


@app.command()
def search(
    query: options.Query,
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
    """Return the neighbours of an image: in its style, of the same thing, or about the same."""
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
        memory=0,  # this process ends with the search
    )
    engine = Engine.open(place, settings)
    image = sys.stdin.buffer.read() if query == STDIN else engine.locate(query)
    with TaskProgress(quiet=quiet, bar=True) as progress:
        results = engine.search(
            image,
            mode,
            partial(progress.show, "computing candidates"),
            k=k,
            candidates=candidates,
            exhaustive=exhaustive,
            rerank=not no_rerank,
            similarity=similarity,
            min_score=min_score,
            exclude_query=exclude_query,
        )
    for note in results.notes:
        say(f"note: {note}")
    print_results(results, form)
    if sheet is not None:
        from retrieval.show import write_results_sheet

        write_results_sheet(sheet, [results], image)
        speaker(quiet)(f"drawn: {sheet}")


def main() -> NoReturn:
    """Run ``diffsim-search``."""
    run(app)
