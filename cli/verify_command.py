"""``diffsim-index verify``: read an index whole, and print what was found and what a repair did or would do."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import typer

from cli import options
from cli.index.worker_options import PoolOptions
from cli.option_groups import Speech, expand_groups
from cli.output import meant_index, naming
from cli.terminal.printing import show, show_json
from cli.terminal.process import Speaker, importing
from cli.terminal.progress import ProgressBar
from retrieval.errors import UsageError
from retrieval.text import counted

if TYPE_CHECKING:
    from index_store.repair.damage import Damage
    from retrieval.indexing.upkeep.repairing import Repaired

DAMAGED = 3  # exit code


@expand_groups
def verify(
    *,
    index: options.Index = None,
    repair: options.Repair = False,
    dry_run: options.DryRunOfRepair = False,
    undo: options.Undo = False,
    pool: PoolOptions,
    as_json: options.AsJson = False,
    speech: Speech,
) -> None:
    """Read every byte of an index and list the damage, file by file."""
    from retrieval.indexing.workers.processes import begin_workers

    workers = pool.settings()
    check_verify(repair, dry_run, undo, workers is not None)
    begin_workers(workers)
    with importing():
        from retrieval.indexing.upkeep.repairing import repair as repair_index
        from retrieval.indexing.upkeep.repairing import undo_repair
        from retrieval.indexing.upkeep.repairing import verify as verify_index

    place, speaker = meant_index(index), speech.speaker()
    if undo:
        change = undo_repair(place).to_dict()
        show_json(change) if as_json else print_undone(change, speaker)
        return
    with ProgressBar(speaker, "reading the whole index") as bar:
        repaired = repair_index(place, dry_run, bar.show) if repair else None
        damages = verify_index(place, bar.show, pool=workers) if repaired is None else repaired.damages
    if as_json:
        counts = {"damages": [damage.what for damage in damages]} if repaired is None else repaired.to_dict()
        show_json({"schema": 1, "index": str(place), "repaired": repair and not dry_run, **counts})
    else:
        print_damages(place, damages, repaired, dry_run, speaker)
    if damages and (dry_run or not repair):
        raise typer.Exit(DAMAGED)


def check_verify(repair: bool, dry_run: bool, undo: bool, by_workers: bool = False) -> None:
    """Raise a UsageError for options of ``verify`` that exclude each other."""
    if dry_run and not repair:
        raise UsageError("--dry-run says what a repair would do: give --repair as well")
    if undo and repair:
        raise UsageError("give --repair or --undo, not both")
    if by_workers and (repair or undo):
        raise UsageError("workers only look for damage: give --repair or --undo without --processes and --ray")


def print_damages(
    place: str | Path, damages: "Sequence[Damage]", taken_out: "Repaired | None", dry_run: bool, speaker: Speaker
) -> None:
    """Print every damage of an index or its repair, and the next command."""
    for damage in damages:
        show(damage.what)
    show(f"{place}: {counted(len(damages), 'damage')}" if damages else f"{place}: no damage")
    if not damages:
        return
    if taken_out is None:
        speaker.say(f"take the damage out with: {naming('diffsim-index verify --repair', place)}")
        return
    speaker.say(f"{'would take out' if dry_run else 'took out'} {_describe_loss(taken_out)}")
    if dry_run:
        speaker.say("nothing was changed")
    elif not taken_out.is_whole:
        sources = " ".join(quote(source) for source in taken_out.sources)
        build = naming(f"diffsim-index build {sources}", place, always=True)
        undo = naming("diffsim-index verify --undo", place)
        speaker.say(f"compute it again with: {build}; or bring it back as it was, for a day, with: {undo}")


def _describe_loss(taken_out: "Repaired") -> str:
    """Return what a repair takes out, and what it restores, as one clause."""
    lost = taken_out.items_before - taken_out.items
    parts = [f"{lost} of {counted(taken_out.items_before, 'image')}"] if lost else []
    parts += [f"{name} of {counted(count, 'image')}" for name, count in taken_out.incomplete.items()]
    parts += [f"the projection of {mode}" for mode in taken_out.projections]
    copies = f"; {counted(taken_out.restored, 'file')} restored from second copies" if taken_out.restored else ""
    return (", ".join(parts) or "nothing") + copies


def print_undone(change: dict[str, Any], speaker: Speaker) -> None:
    """Print the outcome of an undone repair."""
    show(f"{change['index']}: the last repair is undone, {counted(change['items'], 'image')}")
    speaker.say(f"read every byte back with: {naming('diffsim-index verify', change['index'])}")
