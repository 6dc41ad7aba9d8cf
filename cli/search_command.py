"""``diffsim-search``: ask an index for the neighbours of an image."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cli import options
from cli.output import choose_form, print_results
from cli.running import run, say, speaker, work_offline
from index_store.layout import find_index
from retrieval.settings import EngineSettings, SearchSettings, parse_encoders
from retrieval.vocabulary import Similarity

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
HERE, DEFAULTS = EngineSettings(), SearchSettings()
STDIN = "-"


@app.command()
def search(
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="An image's path, - for stdin, id:N, or the end of an indexed path.")
    ],
    index: options.Index = None,
    mode: Annotated[
        str | None, typer.Option("--mode", "-m", help="style, instance or semantic. [default: the index's first]")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--top", help="How many neighbours.")] = DEFAULTS.k,
    candidates: Annotated[
        int, typer.Option("--candidates", help="How many images the exact score orders.")
    ] = DEFAULTS.candidates,
    exhaustive: Annotated[bool, typer.Option("--exhaustive", help="Score every image of the index.")] = False,
    no_rerank: Annotated[bool, typer.Option("--no-rerank", help="Show the coarse ranking.")] = False,
    similarity: Annotated[Similarity, typer.Option("--similarity", help="mse: lower is closer.")] = DEFAULTS.similarity,
    min_score: Annotated[float | None, typer.Option("--min-score", help="Leave out what scores worse.")] = None,
    exclude_query: Annotated[bool, typer.Option("--exclude-query", help="Leave out files equal to the query.")] = False,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Also draw the results: FILE.png or FILE.html.")] = None,
    as_json: options.AsJson = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object a neighbour.")] = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print one path a line.")] = False,
    null: Annotated[bool, typer.Option("-0", "--null", help="Print paths, each ended by a zero byte.")] = False,
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
    )
    engine = Engine.open(place, settings)
    image = sys.stdin.buffer.read() if query == STDIN else engine.locate(query)
    results = engine.search(
        image,
        mode,
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
