"""Bring an index up to date before it is searched."""

from pathlib import Path

from cli.option_groups import EngineOptions
from cli.output import short_path
from cli.reports import describe_changes, note_build
from cli.terminal.process import Speaker, stopping
from cli.terminal.progress import BuildProgress
from retrieval.settings import BuildSettings


def bring_up_to_date(place: str | Path, how: EngineOptions, speaker: Speaker) -> None:
    """Compute new and changed images of the index's own sources, and say what changed.

    Raises:
        UsageError, DiffSimError: see :func:`retrieval.indexing.upkeep.updating.update_index`.
    """
    from retrieval.indexing.upkeep.updating import update_index

    progress = BuildProgress(speaker)
    run = BuildSettings(device=how.device, offline=how.offline, max_pixels=how.max_pixels)
    with stopping(lambda: progress.kept(place)), progress:
        report = update_index(place, run, progress.tell)
    told = report.to_dict()
    speaker.say(f"updated {short_path(told['index'])}: {describe_changes(told)}")
    note_build(told, speaker)
