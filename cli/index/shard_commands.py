"""The commands of ``diffsim-index`` for machines without a scheduler: each builds a part, one commits all parts."""

import os
from functools import partial
from typing import Annotated, Any

import typer

from cli import options
from cli.index.model_options import ModelOptions, RunOptions
from cli.option_groups import Speech, expand_groups
from cli.output import meant_index
from cli.parsing import parse_names
from cli.reports import print_build
from cli.terminal.printing import show, show_json
from cli.terminal.process import stopping, work_offline
from cli.terminal.progress import BuildProgress, ProgressBar
from index_store.locate import INDEX_VARIABLE
from retrieval.errors import UsageError
from retrieval.text import counted

Part = Annotated[str, typer.Option("--shard", metavar="I/N", help="Build part I of N; every machine takes another I.")]


@expand_groups
def worker(
    sources: options.Sources,
    *,
    shard: Part,
    index: options.Index = None,
    modes: options.Modes = None,
    model: ModelOptions,
    how: RunOptions,
    as_json: options.AsJson = False,
    speech: Speech,
    no_progress: options.NoProgress = False,
) -> None:
    """Index part I of N of the images in SOURCE..., beside the index; diffsim-index commit then takes all parts.

    For Slurm or plain machines that share a folder. A stopped part goes on with the same command.
    """
    from retrieval.indexing.build import build_index
    from retrieval.indexing.workers.shards import IndexPart, choices_of, shard_index

    work_offline(how.offline)
    speaker, part, named = speech.speaker(), IndexPart.parse(shard), index or os.environ.get(INDEX_VARIABLE)
    if named is None:
        raise UsageError("--index is needed: all parts belong to one index")
    place = shard_index(named, part)
    asked: dict[str, Any] = {"modes": None if modes is None else parse_names(modes), **model.choices()}
    asked = {**asked, **choices_of(named)}
    progress = BuildProgress(speaker, not no_progress)
    with stopping(lambda: progress.kept(place)), progress:
        report = build_index(
            sources, place, run=how.settings(), only=partial(part.part_of, named), on_progress=progress.tell, **asked
        )
    if as_json:
        show_json(report.to_dict())
    else:
        print_build(report.to_dict(), 0, speaker)


@expand_groups
def commit(index: options.Index = None, *, as_json: options.AsJson = False, speech: Speech) -> None:
    """Take the parts that workers have built into the index, and remove them."""
    from retrieval.indexing.workers.shards import commit_shards

    speaker = speech.speaker()
    place = index or os.environ.get(INDEX_VARIABLE) or meant_index(None)
    bar = ProgressBar(speaker, "merging")
    with stopping(lambda: ""), bar:
        change = commit_shards(place, on_progress=bar.show)
    if as_json:
        show_json(change.to_dict())
    elif not speaker.quiet:
        show(f"{change.index}: {counted(change.items, 'image')} in {counted(change.segments, 'segment')}")
