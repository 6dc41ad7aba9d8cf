"""``diffsim-index``: make, update and inspect indexes."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from cli import options, weights_command
from cli.output import print_json, short_path
from cli.parsing import parse_encoders, parse_names
from cli.process import run, say, speaker, stopping, work_offline
from cli.progress import IMAGES, BuildProgress, Pulse, TaskProgress
from cli.reports import print_build, print_compact, print_damages, print_fill, print_info, print_plan
from index_store.locate import INDEX_VARIABLE, find_index, new_index_path
from retrieval.errors import NoSpaceError
from retrieval.settings import NEWEST, BuildSettings
from retrieval.text import counted

if TYPE_CHECKING:
    from retrieval.indexing.reports import BuildReport

REJECTED = 4  # the exit code of --strict
DAMAGED = 3

app = typer.Typer(
    help="Make, update and inspect image indexes for diffsim-search.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
RUN = BuildSettings()


@app.callback()
def _index(version: options.Version = False) -> None:
    pass


@app.command()
def build(
    sources: options.Sources,
    index: options.Index = None,
    modes: options.Modes = None,
    model: options.Model = None,
    metric: options.Metric = None,
    weights: options.Weights = None,
    encoders: options.Encoders = None,
    image_size: options.ImageSize = None,
    branches: options.BranchesOf = None,
    noise: options.Noise = None,
    seed: options.Seed = None,
    prompt: options.Prompt = None,
    alpha: options.Alpha = None,
    codec: options.Codec = None,
    parity: options.Parity = None,
    dtype: options.Dtype = None,
    device: options.Device = RUN.device,
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    segment_rows: options.SegmentRows = RUN.segment_rows,
    commit_seconds: options.CommitSeconds = RUN.commit_seconds,
    attention: options.Attention = None,
    retry_rejects: options.RetryRejects = False,
    dry_run: options.DryRun = False,
    strict: options.Strict = False,
    offline: options.Offline = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    no_progress: options.NoProgress = False,
) -> None:
    """Make an index of the images in SOURCE..., or bring it up to date: only new and changed images are computed.

    Can be stopped at any moment; the same command goes on. An existing index keeps the settings it was made with;
    modes and encoders that it lacks are added to it, for all its images.
    """
    work_offline(offline)
    from retrieval.metrics.registry import chosen_model

    chosen: dict[str, Any] = {
        "model": chosen_model(model, metric),
        "weights": None if weights is None else str(weights),
        "encoders": None if encoders is None else parse_encoders(encoders),
        "image_size": image_size,
        "branches": branches,
        "noise": noise,
        "seed": seed,
        "prompt": prompt,
        "alpha": alpha,
        "codec": codec,
        "parity": parity,
        "dtype": dtype,
    }
    settings = BuildSettings(
        device, batch_size, workers, segment_rows, commit_seconds, retry_rejects, offline, attention
    )
    asked: dict[str, Any] = {
        "index": index or os.environ.get(INDEX_VARIABLE),
        "modes": None if modes is None else parse_names(modes),
        "run": settings,
        **{name: value for name, value in chosen.items() if value is not None},
    }
    if dry_run:
        _plan(sources, asked, as_json)
        return
    report = _build(sources, asked, BuildProgress(quiet=quiet, bar=not no_progress))
    if as_json:
        print_json(report.to_dict())
    else:
        print_build(report.to_dict(), quiet)
    if strict and report.rejected:
        raise typer.Exit(REJECTED)


def _build(sources: list[Path], asked: dict[str, Any], progress: BuildProgress) -> "BuildReport":
    from retrieval.indexing.build import build_index

    def kept() -> str:
        return progress.kept(asked["index"] or new_index_path(sources[:1], Path()))

    with stopping(kept), progress:
        return build_index(sources, on_event=progress.tell, **asked)


def _plan(sources: list[Path], asked: dict[str, Any], as_json: bool) -> None:
    from retrieval.indexing.dry_run import plan_build

    with Pulse("timing a few images", say):
        plan = plan_build(sources, **asked)
    if as_json:
        print_json(plan.to_dict())
    else:
        print_plan(plan)
    if not plan.fits:
        raise typer.Exit(NoSpaceError.exit_code)


@app.command()
def fill(
    index: options.Index = None,
    modes: options.ModesToFill = None,
    order: options.Order = [NEWEST],  # noqa: B006 (typer reads it and leaves it as it is)
    weights: options.Weights = None,
    device: options.Device = RUN.device,
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    segment_rows: options.SegmentRows = RUN.segment_rows,
    commit_seconds: options.CommitSeconds = RUN.commit_seconds,
    offline: options.Offline = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    no_progress: options.NoProgress = False,
) -> None:
    """Compute the tensors that an index's images lack, in the order you name.

    Can be stopped at any moment; the same command goes on.
    """
    work_offline(offline)
    from retrieval.indexing.fill import fill_index

    place = find_index(index, os.environ, Path.cwd())
    progress = BuildProgress(quiet=quiet, bar=not no_progress, what="filling")
    with stopping(lambda: progress.kept(place)), progress:
        report = fill_index(
            place,
            modes=None if modes is None else parse_names(modes),
            order=order,
            weights=None if weights is None else str(weights),
            run=BuildSettings(device, batch_size, workers, segment_rows, commit_seconds, offline=offline),
            on_event=progress.tell,
        ).to_dict()
    if as_json:
        print_json(report)
        return
    print_fill(report, quiet)


@app.command()
def info(
    index: options.Index = None,
    rejects: options.Rejects = False,
    as_json: options.AsJson = False,
) -> None:
    """Show what an index holds: images, modes, model, bytes and rejects."""
    from retrieval.search.engine import Engine

    about = Engine.open(find_index(index, os.environ, Path.cwd())).info()
    if as_json:
        print_json(about)
        return
    if rejects:
        for reject in about["rejects"]:
            print(f"{reject['reason']}\t{short_path(reject['path'])}\t{reject['detail']}")
        return
    print_info(about)


@app.command()
def remove(
    what: options.Patterns, index: options.Index = None, as_json: options.AsJson = False, quiet: options.Quiet = False
) -> None:
    """Take images out of an index. Files are not touched; one that stays in a source comes back with its next build."""
    from retrieval.indexing.maintenance import remove_items

    change = remove_items(find_index(index, os.environ, Path.cwd()), what)
    if as_json:
        print_json(change.to_dict())
    else:
        speaker(quiet)(f"{change.removed} removed")
        print(f"{change.index}: {counted(change.items, 'image')}")


@app.command()
def compact(
    index: options.Index = None,
    now: options.Now = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Merge an index's segments into few and leave removed images out."""
    from retrieval.indexing.maintenance import compact as compact_index

    with TaskProgress(quiet, counted=IMAGES) as progress:
        change = compact_index(find_index(index, os.environ, Path.cwd()), now, partial(progress.show, "copying"))
    if as_json:
        print_json(change.to_dict())
        return
    print_compact(change.to_dict(), now, quiet)


@app.command()
def verify(index: options.Index = None, repair: options.Repair = False, as_json: options.AsJson = False) -> None:
    """Read every byte of an index back and say what is wrong, file by file."""
    from retrieval.indexing.maintenance import repair as repair_index
    from retrieval.indexing.maintenance import verify as verify_index

    place = find_index(index, os.environ, Path.cwd())
    with Pulse("reading all of it back", say):
        repaired = repair_index(place) if repair else None
        damages = verify_index(place) if repaired is None else repaired.damages
    if as_json:
        told = {"repaired": repair, "damages": [damage.what for damage in damages]}
        print_json({"schema": 1, "index": str(place), **told})
    else:
        print_damages(place, damages, repaired)
    if damages and not repair:
        raise typer.Exit(DAMAGED)


@app.command()
def export(folder: options.Folder, index: options.Index = None, as_json: options.AsJson = False) -> None:
    """Write the catalogue (Parquet) and the vectors (npy) of an index for other programs."""
    from retrieval.indexing.maintenance import export as export_index

    change = export_index(find_index(index, os.environ, Path.cwd()), folder)
    if as_json:
        print_json(change.to_dict())
    else:
        print(f"{folder}: {counted(change.items, 'image')}")


app.command()(weights_command.fetch)


@app.command()
def doctor(weights: weights_command.CheckedWeights = None, as_json: options.AsJson = False) -> None:
    """Say what is installed, what is missing and what does not go together."""
    from retrieval.doctor import examine

    if weights is not None:
        weights_command.check(weights, as_json)
        return
    findings = examine(Path.cwd())
    if as_json:
        print_json({"schema": 1, "findings": [finding.to_dict() for finding in findings]})
    else:
        for finding in findings:
            print(f"{finding.state:8s} {finding.what:22s} {finding.detail}")
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


def main() -> NoReturn:
    """Run ``diffsim-index``."""
    run(app)
