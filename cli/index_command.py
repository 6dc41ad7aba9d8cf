"""``diffsim-index``: make, update and inspect indexes."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from cli import grouping_commands, options, source_commands, verify_command, weights_command
from cli.index import plan_command, shard_commands
from cli.index.model_options import ModelOptions, RunOptions
from cli.index.worker_options import PoolOptions
from cli.option_groups import Speech, expand_groups, text_of
from cli.output import meant_index, short_path
from cli.parsing import parse_names
from cli.reports import plan_to_json, print_build, print_compact, print_fill, print_info, print_plan
from cli.terminal.printing import show, show_json
from cli.terminal.process import HELP, Speaker, importing, run, stopping, work_offline
from cli.terminal.progress import BuildProgress, ProgressBar
from index_store.locate import INDEX_VARIABLE, is_index, new_index_path, place_of_build
from index_store.remote.object_store import is_url
from retrieval.errors import NoSpaceError
from retrieval.models.registry import describe_extractor
from retrieval.settings import NEWEST
from retrieval.text import counted

if TYPE_CHECKING:
    from retrieval.indexing.reports import BuildReport

REJECTED = 4  # the exit code of --strict

app = typer.Typer(
    help="Make, update and inspect image indexes for diffsim-search.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings=HELP,
)


@app.callback()
def _index(version: options.Version = False) -> None:
    pass


@app.command()
@expand_groups
def build(
    sources: options.Sources,
    *,
    index: options.Index = None,
    modes: options.Modes = None,
    model: ModelOptions,
    attention: options.Attention = None,
    how: RunOptions,
    pool: PoolOptions,
    retry_rejects: options.RetryRejects = False,
    rehash: options.Rehash = False,
    gone: options.Gone = False,
    dry_run: options.DryRun = False,
    strict: options.Strict = False,
    as_json: options.AsJson = False,
    speech: Speech,
    no_progress: options.NoProgress = False,
) -> None:
    """Make an index of the images in SOURCE..., or bring it up to date. Only new and changed images are computed.

    You can stop a build at any moment; the same command goes on. An existing index keeps its settings. Modes and
    encoders that it does not have yet are added for all its images.
    """
    work_offline(how.offline)
    speaker, choices = speech.speaker(), model.choices()
    asked: dict[str, Any] = {
        "index": _place(sources, index or os.environ.get(INDEX_VARIABLE), speaker),
        "modes": None if modes is None else parse_names(modes),
        "run": how.settings(
            attention=attention, retry_rejects=retry_rejects, rehash=rehash, gone=gone, pool=pool.settings()
        ),
        **choices,
    }
    chosen_here = "model" not in choices and _is_new(asked["index"])
    if dry_run:
        _plan(sources, asked, as_json, chosen_here)
        return
    report = _build(sources, asked, BuildProgress(speaker, not no_progress, note_model=chosen_here))
    for name in sorted(choices.keys() & set(describe_extractor(report.model).unused)):
        speaker.note(f"--{name.replace('_', '-')} changes nothing of {report.model}")
    if as_json:
        show_json(report.to_dict())
    else:
        print_build(report.to_dict(), 0 if speaker.quiet else _size_of(report.index), speaker)
    if strict and report.rejected:
        raise typer.Exit(REJECTED)


def _place(sources: list[Path], named: str | None, speaker: Speaker) -> str | Path:
    """Return the index to build; say so where nobody named it and its name is not that of the source."""
    if named:
        return named
    place = place_of_build(sources, Path())
    if place.name != new_index_path(sources[:1], Path()).name:
        speaker.note(f"building into {place}, the only index here; name another one with --index")
    return place


def _is_new(place: str | Path) -> bool:
    """Say whether a build would make a new folder here; of an object store nobody knows before it is asked."""
    return not is_url(str(place)) and not is_index(Path(place))


def _build(sources: list[Path], asked: dict[str, Any], progress: BuildProgress) -> "BuildReport":
    from retrieval.indexing.workers.processes import begin_workers

    begin_workers(asked["run"].pool)
    with importing():
        from retrieval.indexing.build import build_index

    def kept() -> str:
        return progress.kept(asked["index"])

    with stopping(kept), progress:
        return build_index(sources, on_progress=progress.tell, **asked)


def _plan(sources: list[Path], asked: dict[str, Any], as_json: bool, chosen_here: bool) -> None:
    from retrieval.indexing.dry_run import plan_build

    with ProgressBar(Speaker(), state="timing a few images"):
        plan = plan_build(sources, **asked)
    if as_json:
        show_json(plan_to_json(plan))
    else:
        print_plan(plan, chosen_here)
    if not plan.fits:
        raise typer.Exit(NoSpaceError.exit_code)


def _size_of(index: str) -> int:
    """Return the bytes of an index, wherever it lies."""
    from index_store.disk_usage import bytes_on_disk
    from index_store.generation import read_current
    from index_store.layout import Layout
    from index_store.remote.pull import existing_root

    layout = Layout(existing_root(index))
    return sum(bytes_on_disk(layout, read_current(layout).stored_names).values())


@app.command()
@expand_groups
def fill(
    *,
    index: options.Index = None,
    modes: options.ModesToFill = None,
    order: options.Order = [NEWEST],  # noqa: B006 (typer reads it and leaves it as it is)
    weights: options.Weights = None,
    how: RunOptions,
    pool: PoolOptions,
    as_json: options.AsJson = False,
    speech: Speech,
    no_progress: options.NoProgress = False,
) -> None:
    """Compute the missing tensors and vectors of an index, in the order you name.

    You can stop a fill at any moment; the same command goes on.
    """
    work_offline(how.offline)
    from retrieval.indexing.workers.processes import begin_workers

    workers = pool.settings()
    begin_workers(workers)
    with importing():
        from retrieval.indexing.fill import fill_index

    place, speaker = meant_index(index), speech.speaker()
    progress = BuildProgress(speaker, not no_progress, what="filling")
    with stopping(lambda: progress.kept(place)), progress:
        report = fill_index(
            place,
            modes=None if modes is None else parse_names(modes),
            order=order,
            weights=text_of(weights),
            run=how.settings(pool=workers),
            on_progress=progress.tell,
        ).to_dict()
    if as_json:
        show_json(report)
    else:
        print_fill(report, speaker)


@app.command()
@expand_groups
def info(
    *,
    index: options.Index = None,
    rejects: options.Rejects = False,
    as_json: options.AsJson = False,
    speech: Speech,
) -> None:
    """Show the images, modes, model, bytes and rejects of an index."""
    speech.speaker()
    from retrieval.search.engine import Engine

    about = Engine.open(meant_index(index)).info()
    if as_json:
        show_json(about)
    elif rejects:
        for reject in about["rejects"]:
            show(reject["reason"], short_path(reject["path"]), reject["detail"])
    else:
        print_info(about)


for _command in (
    source_commands.remove,
    source_commands.sources,
    source_commands.relocate,
    shard_commands.worker,
    shard_commands.commit,
    plan_command.plan,
):
    app.command()(_command)


@app.command()
@expand_groups
def compact(
    *,
    index: options.Index = None,
    now: options.Now = False,
    as_json: options.AsJson = False,
    speech: Speech,
) -> None:
    """Merge the segments of an index into few, without the removed images."""
    from retrieval.indexing.upkeep.compacting import compact as compact_index

    speaker = speech.speaker()
    with ProgressBar(speaker) as bar:
        change = compact_index(meant_index(index), now, bar.show)
    if as_json:
        show_json(change.to_dict())
    else:
        print_compact(change.to_dict(), now, speaker)


app.command()(verify_command.verify)


@app.command()
@expand_groups
def export(
    folder: options.Folder, *, index: options.Index = None, as_json: options.AsJson = False, speech: Speech
) -> None:
    """Write the catalogue (Parquet) and the vectors (npy) of an index for other programs."""
    speaker = speech.speaker()
    from retrieval.indexing.upkeep.exporting import export as export_index

    change = export_index(meant_index(index), folder)
    if as_json:
        show_json(change.to_dict())
    elif not speaker.quiet:
        show(f"{folder}: {counted(change.items, 'image')}")


app.command()(weights_command.fetch)
for _command in (grouping_commands.duplicates, grouping_commands.clusters):
    app.command()(_command)


@app.command()
@expand_groups
def doctor(*, weights: weights_command.CheckedWeights = None, as_json: options.AsJson = False, speech: Speech) -> None:
    """Report the packages, devices, weights and disk of this machine, and problems among them."""
    speech.speaker()
    from retrieval.doctor import examine

    if weights is not None:
        weights_command.check(weights, as_json)
        return
    findings = examine(Path.cwd())
    if as_json:
        show_json({"schema": 1, "findings": [finding.to_dict() for finding in findings]})
    else:
        widest = max(len(finding.what) for finding in findings)
        for finding in findings:
            show(f"{finding.state:8s} {finding.what:{widest}s} {finding.detail}")
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


def main() -> NoReturn:
    """Run ``diffsim-index``."""
    run(app)
