"""``diffsim-index``: make, update and inspect indexes."""

import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from cli import options
from cli.output import human_bytes, print_json, short_path
from cli.progress import BuildProgress, pace
from cli.running import run, speaker, work_offline
from index_store.layout import INDEX_VARIABLE, find_index
from retrieval.settings import BuildSettings, ModelSettings, parse_encoders
from retrieval.vocabulary import AlphaRule, Branches, DtypeName, NoiseRule

REJECTED = 4  # exit code of --strict

app = typer.Typer(
    help="Make, update and inspect image indexes for diffsim-search.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
RUN, MODEL = BuildSettings(), ModelSettings()


@app.callback()
def _index(version: options.Version = False) -> None:
    pass


@app.command()
def build(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Folders (walked recursively) and images.")
    ],
    index: options.Index = None,
    modes: Annotated[
        str | None, typer.Option("--modes", help="Modes to build for. [default: style,instance,semantic]")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="auto, sd15 or mini. [default: auto]")] = None,
    weights: options.Weights = None,
    encoders: options.Encoders = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Pixels a side. [default: the model's]")
    ] = None,
    branches: Annotated[
        Branches | None, typer.Option("--branches", help=f"Guidance branches of SD 1.5. [default: {MODEL.branches}]")
    ] = None,
    noise: Annotated[
        NoiseRule | None,
        typer.Option("--noise", help="pairwise is the published score, shared is symmetric. [default: the model's]"),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help=f"Seed of the noise. [default: {MODEL.seed}]")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help=f"Prompt of SD 1.5. [default: {MODEL.prompt}]")] = None,
    alpha: Annotated[
        AlphaRule | None,
        typer.Option("--alpha", help=f"Composite alpha on white, or drop it as published. [default: {MODEL.alpha}]"),
    ] = None,
    dtype: Annotated[
        DtypeName | None, typer.Option("--dtype", help=f"The model's arithmetic. [default: {MODEL.dtype}]")
    ] = None,
    device: options.Device = RUN.device,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Images a batch. [default: the model's]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Decoding threads. [default: one a core, 8 at most]")
    ] = None,
    segment_rows: Annotated[
        int, typer.Option("--segment-rows", help="Commit at the latest after this many images,")
    ] = RUN.segment_rows,
    commit_seconds: Annotated[
        float, typer.Option("--commit-seconds", help="or after this many seconds.")
    ] = RUN.commit_seconds,
    retry_rejects: Annotated[bool, typer.Option("--retry-rejects", help="Try rejected images again.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help=f"Exit with {REJECTED} when images were rejected.")] = False,
    offline: options.Offline = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Draw no progress bar.")] = False,
) -> None:
    """Make an index of the images in SOURCE..., or bring it up to date: only new and changed images are computed.

    Can be stopped at any moment; the same command goes on. An existing index keeps the settings it was made with.
    """
    work_offline(offline)
    from retrieval.build import build_index

    chosen: dict[str, Any] = {
        "model": model,
        "weights": None if weights is None else str(weights),
        "encoders": None if encoders is None else parse_encoders(encoders),
        "image_size": image_size,
        "branches": branches,
        "noise": noise,
        "seed": seed,
        "prompt": prompt,
        "alpha": alpha,
        "dtype": dtype,
    }
    settings = BuildSettings(
        device=device,
        batch_size=batch_size,
        workers=workers,
        segment_rows=segment_rows,
        commit_seconds=commit_seconds,
        retry_rejects=retry_rejects,
        offline=offline,
    )
    with BuildProgress(quiet=quiet, bar=not no_progress) as progress:
        report = build_index(
            sources,
            index or os.environ.get(INDEX_VARIABLE),
            modes=None if modes is None else [name.strip() for name in modes.split(",") if name.strip()],
            run=settings,
            on_event=progress.show,
            **{name: value for name, value in chosen.items() if value is not None},
        )
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report.to_dict(), quiet)
    if strict and report.rejected:
        raise typer.Exit(REJECTED)


def _print_report(report: dict[str, Any], quiet: bool) -> None:
    rejected = sum(report["rejected"].values())
    print(f"{report['index']}: {report['items']} images ({', '.join(report['modes'])}; model {report['model']})")
    say = speaker(quiet)
    if report["added"]:
        changed = f", {report['replaced']} of them changed files" if report["replaced"] else ""
        say(
            f"{report['added']} added in {report['seconds']:.1f} s ({pace(report['added'], report['seconds'])}){changed}"
        )
    if report["unchanged"]:
        say(f"{report['unchanged']} were there already")
    if rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(report["rejected"].items()))
        say(f"{rejected} rejected ({reasons}); see them with: diffsim-index info --rejects")
    if report["passed_over"]:
        say(f"{report['passed_over']} files passed over: their names are no image's")
    for folder in report["unreadable_folders"]:
        say(f"could not be read: {folder}")


@app.command()
def info(
    index: options.Index = None,
    rejects: Annotated[bool, typer.Option("--rejects", help="List the rejected images with their reasons.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show what an index holds: images, modes, model, bytes and rejects."""
    from retrieval.engine import Engine

    about = Engine.open(find_index(index, os.environ, Path.cwd())).info()
    if as_json:
        print_json(about)
        return
    if rejects:
        for reject in about["rejects"]:
            print(f"{reject['reason']}\t{short_path(reject['path'])}\t{reject['detail']}")
        return
    items = max(1, about["items"])
    print(f"{about['path']}: {about['items']} images, model {about['model']}, generation {about['generation']}")
    for mode, target in about["modes"].items():
        where = f"layer {target['layer']}, timestep {target['timestep']} (denoising step {target['denoising_step']})"
        print(f"  {mode}: {where}, {human_bytes(about['bytes'][mode] / items)} an image")
    size = human_bytes(about["bytes"]["catalog and vectors"] / items)
    print(f"  encoders: {', '.join(about['encoders']) or 'none'}; catalogue and vectors {size} an image")
    print(f"  {about['segments']} segments, {about['removed']} removed, {len(about['rejects'])} rejected")
    print(f"  last changed {about['created']} by {about['created_by']}, format {about['format_version']}")


def main() -> NoReturn:
    """Run ``diffsim-index``."""
    run(app)
