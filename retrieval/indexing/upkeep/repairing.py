"""Verify an index, take the damage out of it, and undo that."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from index_store.catalog_files.sources import Sources
from index_store.commit import commit
from index_store.garbage import prepare_to_write
from index_store.layout import Layout
from index_store.lock import writer_lock
from index_store.reader import IndexReader
from index_store.remote.pull import existing_root
from index_store.repair.damage import Damage, damage_outside_segments, find_damage
from index_store.repair.loss import loss_of
from index_store.repair.mending import before_repair, mend, restore
from index_store.repair.rebuilding import newest_generation
from retrieval.errors import IndexCorruptError, IndexUnreadableError
from retrieval.indexing.upkeep.change import Change
from retrieval.indexing.workers.driver import wait_for
from retrieval.indexing.workers.opening import verifier_pool
from retrieval.indexing.workers.processes import begin_workers
from retrieval.indexing.workers.verifier import VerifySegmentJob
from retrieval.progress import Cancellation, OnProgress, Progress, ignore_progress
from retrieval.settings import WorkerSettings
from retrieval.version import CREATED_BY

LOG = logging.getLogger(__name__)


def verify(
    index: str | Path,
    on_progress: OnProgress = ignore_progress,
    cancel: Cancellation | None = None,
    pool: WorkerSettings | None = None,
) -> list[Damage]:
    """Read every byte of an index and return the damage; an empty list means that the index is whole.

    Args:
        index: its folder or object-store URL.
        on_progress: hears of the stage "verify", which counts segments.
        cancel: stops the reading between two segments.
        pool: workers that read the segments; None: this process does.

    Raises:
        CancelledError: the reading was stopped.
        IndexUnreadableError: the system refused to read a file.
        WorkerLostError: a segment has lost several workers.
    """
    root = existing_root(index, fresh=True)
    return _look(root, on_progress, cancel) if pool is None else _have_looked(root, pool, on_progress, cancel)


def _look(root: Path, on_progress: OnProgress, cancel: Cancellation | None) -> list[Damage]:
    def on_segment(done: int, total: int) -> None:
        if cancel is not None:
            cancel.check()
        on_progress(Progress("verify", done, total))

    return list(find_damage(root, on_segment))


def _have_looked(
    root: Path, settings: WorkerSettings, on_progress: OnProgress, cancel: Cancellation | None
) -> list[Damage]:
    """Let workers look for damage, a segment at a time."""
    begin_workers(settings)
    layout = Layout(root)
    damages, generation = list(damage_outside_segments(layout)), newest_generation(layout)
    if generation is None:
        return damages
    with verifier_pool(root, settings) as pool:
        jobs = [VerifySegmentJob(root, each.name, each, generation.tombstones) for each in generation.segments]
        for done, future in enumerate([pool.submit(job) for job in jobs]):
            on_progress(Progress("verify", done, len(jobs)))
            damages += wait_for(future, cancel)
    return damages


@dataclass(frozen=True)
class Repaired:
    """The result of a repair, or of a dry run of one."""

    damages: list[Damage]
    items_before: int = 0  # in the damaged index
    items: int = 0  # in the index now
    restored: int = 0  # files that were restored from their second copies
    incomplete: Mapping[str, int] = field(default_factory=dict)  # images that lost tensors or vectors, by mode, encoder
    projections: tuple[str, ...] = ()  # modes that lost their projection
    sources: tuple[str, ...] = ()  # a build of these computes again what was taken out

    @property
    def is_whole(self) -> bool:
        """Whether nothing was taken out."""
        return self.items == self.items_before and not self.incomplete and not self.projections

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: the damages as sentences, and the counts."""
        return {
            "damages": [damage.what for damage in self.damages],
            "items_before": self.items_before,
            "items": self.items,
            "restored_files": self.restored,
            "incomplete": dict(self.incomplete),
            "projections": list(self.projections),
        }


def repair(
    index: str | Path,
    dry_run: bool = False,
    on_progress: OnProgress = ignore_progress,
    cancel: Cancellation | None = None,
) -> Repaired:
    """Restore what :func:`verify` finds damaged and has a second copy; take out the rest, as little as possible.

    The next build or fill computes again what was taken out. :func:`undo_repair` brings it back for a day.

    Args:
        index: its folder or object-store URL.
        dry_run: write nothing, and return what a repair would do.
        on_progress: as for :func:`verify`.
        cancel: as for :func:`verify`; the index is as before.

    Raises:
        IndexCorruptError: no generation and no segment is readable.
        IndexUnreadableError: the system refused to read a file, which may be whole. Nothing was taken out.
    """
    layout = Layout(existing_root(index, fresh=True))
    with writer_lock(layout):
        try:
            damages = _look(layout.root, on_progress, cancel)
            generation = newest_generation(layout)
        except IndexUnreadableError as error:
            raise IndexUnreadableError(f"{error}; nothing was taken out") from error
        if generation is None:
            raise IndexCorruptError(f"{index} has no readable generation left: build it anew")
        if not damages:
            count = len(IndexReader(layout.root, generation))
            return Repaired([], count, count)
        mending = mend(layout, generation, damages)
        loss = loss_of(layout, generation, mending.generation, damages)
        found = Repaired(
            damages,
            restored=len(mending.restored),
            sources=Sources(generation.sources, layout.root).places,
            **vars(loss),
        )
        if dry_run:
            return found
        restore(layout, mending.restored)
        if mending.is_new:
            mended = IndexReader(layout.root, mending.generation).generation  # it can be opened
            commit(layout, prepare_to_write(layout, mended), CREATED_BY, repair_of=generation.number)
    LOG.warning(
        "repaired %s: %d damages, %d images before, %d now", index, len(damages), found.items_before, found.items
    )
    return found


def undo_repair(index: str | Path) -> Change:
    """Bring back what the last repair took out, damaged as it was; its files stay for a day.

    That helps where the damaged files were restored from a copy afterwards.

    Raises:
        UsageError: the last change was no repair, or its files are deleted by now.
    """
    layout = Layout(existing_root(index, fresh=True))
    with writer_lock(layout):
        stored = commit(layout, before_repair(layout), CREATED_BY)
    items = loss_of(layout, stored, stored, ()).items
    return Change(str(index), items, segments=len(stored.segments))
