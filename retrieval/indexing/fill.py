"""Fill an index: compute, or copy, the tensors and vectors that its items lack; commit them segment after segment.

What is committed stays, whenever a fill is stopped; the next one goes on with what is still lacking. Nothing that is
in the index already is computed again, and a file that is no longer what was indexed is left alone.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_store.garbage import clear_uncommitted, drop_expired
from index_store.generation import Generation, SegmentRecord
from index_store.layout import Layout
from index_store.locate import require_index
from index_store.lock import writer_lock
from index_store.reader import IndexReader
from index_store.remote.mirror import index_name
from index_store.remote.pull import existing_root
from index_store.row_locations import batched
from index_store.segment_writer import SegmentWriter
from index_store.tensors.cache import CacheKey, TensorCache
from index_store.vectors.training import train_where_due
from retrieval.encoding.batches import Failure, FileBatch, batch_size, workers
from retrieval.encoding.fingerprint import check_fingerprint, tensors_digest
from retrieval.encoding.loaded_models import InFlightBatch, ModelInputs, load_models
from retrieval.encoding.recipe import continued_recipe, lacks_modes
from retrieval.encoding.stored_tensors import coverage
from retrieval.encoding.timing import WRITE, StageClock
from retrieval.images.discovery import Paths
from retrieval.indexing.committer import SegmentCommitter
from retrieval.indexing.estimate import Workload, check_estimate, estimate_workload
from retrieval.indexing.fill_order import check_order, in_order
from retrieval.indexing.missing import Copy, Job, Missing, find_missing
from retrieval.indexing.pipeline import Pipeline
from retrieval.indexing.reports import BuildEvent, FillReport
from retrieval.models.modes import Outputs, choose_modes
from retrieval.models.registry import describe_extractor
from retrieval.settings import NEWEST, BuildSettings, ModelChoices
from retrieval.text import counted

COPIED_ROWS = 16  # taken from the cache, or from another mode, at a time


@dataclass(frozen=True)
class Filled:
    """What was done."""

    items: int = 0
    unavailable: int = 0  # items whose files are gone, or are not what was indexed any more


class Filler:
    """Gives items what they lack, under the writer's lock."""

    def __init__(
        self,
        pipeline: Pipeline,
        commits: SegmentCommitter,
        on_batch: Callable[[int], None],
    ) -> None:
        """Take a pipeline, and where to write; ``on_batch`` is told how many items each batch dealt with."""
        self._pipeline = pipeline
        self._commits, self._on_batch = commits, on_batch
        self._unavailable = 0

    def run(self, reader: IndexReader, backlog: Missing) -> Filled:
        """Do what ``reader`` was found to lack: copy what can be copied, then compute the jobs one after the other."""
        completed = np.zeros(len(reader), bool)
        for copy in backlog.copies:
            self._copy(reader, copy)
            completed[copy.rows] = True
        for job in backlog.jobs:
            self._compute(reader, job, completed)
        return Filled(int(completed.sum()), backlog.unavailable + self._unavailable)

    def _compute(self, reader: IndexReader, job: Job, completed: NDArray[np.bool_]) -> None:
        """Compute what the rows of ``job`` lack; those that have it then are marked in ``completed``."""
        batches = batched(job.rows, self._pipeline.batch)
        under_way: deque[list[int]] = deque()  # by batch, the rows whose file is still what was indexed

        def usable(batch: FileBatch) -> list[ModelInputs]:
            rows = next(batches)
            known = zip(rows.tolist(), reader.items(rows), batch.outcomes, strict=True)
            same = [
                (row, outcome[1])
                for row, item, outcome in known
                if not isinstance(outcome, Failure) and outcome[0].sha256 == item.sha256
            ]
            under_way.append([row for row, _ in same])
            return [prepared for _, prepared in same]

        def add(computed: tuple[FileBatch, InFlightBatch], segment: SegmentWriter) -> None:
            batch, pending = computed
            rows = under_way.popleft()
            if rows:
                with self._pipeline.clock.working(WRITE, len(rows)):
                    stored = pending.stored()
                    segment.fill(reader.ids[rows].tolist(), stored.vectors, stored.tensors)
            completed[rows] = True
            self._unavailable += len(batch.files) - len(rows)
            self._on_batch(len(batch.files))

        files = Paths(reader.uris(job.rows))
        self._commits.run(self._pipeline.run(files, job.need, usable, self._commits.leaves_room), add, self._grow)

    def _copy(self, reader: IndexReader, copy: Copy) -> None:
        """Commit stored tensors once more under another mode's name: their files need not be there any more."""

        def add(rows: NDArray[np.int64], segment: SegmentWriter) -> None:
            segment.fill(reader.ids[rows].tolist(), {}, {copy.mode: reader.attention(copy.source, rows.tolist())})
            self._on_batch(len(rows))

        self._commits.run(batched(copy.rows, COPIED_ROWS), add, self._grow)

    def adopt(self, cache: TensorCache, mode: str, digest: str, ids: NDArray[np.int64]) -> int:
        """Commit what searches have left of ``mode`` in the cache for ``ids``; return how many items that were."""
        taken: list[CacheKey] = []

        def add(batch: NDArray[np.int64], segment: SegmentWriter) -> None:
            for key in (CacheKey(mode, digest, number) for number in batch.tolist()):
                found = cache.get(key)
                if found is not None:
                    segment.fill([key.id], {}, {mode: {name: array[None] for name, array in found.items()}})
                    taken.append(key)

        self._commits.run(batched(ids, COPIED_ROWS), add, self._grow)
        for key in taken:
            cache.drop(key)
        return len(taken)

    def _grow(self, segment: SegmentWriter, record: SegmentRecord) -> Generation:
        return replace(self._commits.generation, segments=(*self._commits.generation.segments, record))


def fill_index(
    index: str | Path,
    *,
    modes: Sequence[str] | None = None,
    order: Sequence[str] = (NEWEST,),
    weights: str | None = None,
    run: BuildSettings | None = None,
    on_event: Callable[[BuildEvent], None] = lambda event: None,
) -> FillReport:
    """Compute the tensors that items of an index lack, and any vectors that they lack.

    What searches have computed already is taken from their cache.

    Args:
        index: where it is.
        modes: those to fill; by default all that the index has.
        order: see :func:`retrieval.indexing.fill_order.in_order`.
        weights: in place of the folder that the index remembers; the weights must be the same.
        run: device, batch size and the like; nothing there changes a score.
        on_event: told of every step; may raise KeyboardInterrupt to stop.

    Raises:
        UsageError: an unknown mode or order.
        IndexIncompatibleError: a mode that the index lacks, or other weights than those it was made with.
        IndexLockedError, IndexCorruptError, ModelError, NoSpaceError: see :mod:`index_store.errors`.
        KeyboardInterrupt: after what was complete has been committed.
    """
    check_order(order)
    run = run or BuildSettings()
    started = time.monotonic()
    layout = Layout(require_index(existing_root(index)))
    with writer_lock(layout):
        report = _fill(layout, modes, order, weights, run, on_event)
    return replace(report, seconds=time.monotonic() - started)


def _fill(
    layout: Layout,
    modes: Sequence[str] | None,
    order: Sequence[str],
    weights: str | None,
    run: BuildSettings,
    on_event: Callable[[BuildEvent], None],
) -> FillReport:
    reader = IndexReader(layout.root)
    generation = drop_expired(layout, reader.generation)
    clear_uncommitted(layout, generation)
    choices: ModelChoices = {} if weights is None else {"weights": weights}
    recipe = continued_recipe(reader, layout.root, None, choices, run)
    wanted = Outputs(_modes(reader, recipe.settings.model, modes), tuple(recipe.settings.encoders or {}))
    planned = find_missing(reader, wanted, recipe.targets)
    on_event(BuildEvent("planned", f"{counted(len(planned), 'image')} to complete", total=len(planned)))
    adopted, filled, clock = 0, Filled(0, planned.unavailable), StageClock(workers(run))
    if planned or planned.unavailable:
        on_event(BuildEvent("model", f"{recipe.chosen.name} ({recipe.chosen.why})"))
        models = load_models(recipe.settings, recipe.targets, run.device, run.offline)
        fingerprint = models.fingerprint()
        check_fingerprint(generation.fingerprint, fingerprint, layout.root)
        rows = in_order(reader, order, models)  # before anything is committed: it may name a picture that is not there
        run = replace(run, batch_size=batch_size(recipe.settings, run))
        estimate = estimate_workload(models, recipe.settings, run, layout.root, Workload(0, (), planned))
        on_event(BuildEvent("estimate", total=len(planned), estimate=estimate))
        check_estimate(estimate, layout.root)
        pipeline = Pipeline.begin(models, run, clock)
        on_event(BuildEvent("loaded"))
        progress = _Progress(on_event, clock)
        commits = SegmentCommitter(layout, generation, recipe.settings.codec, run, (), clock, progress.committed)
        filler = Filler(pipeline, commits, progress.advance)
        cache = TensorCache(layout, budget=0)
        for mode in wanted.modes:
            digest = tensors_digest(fingerprint, mode)
            lacking = reader.ids[~reader.has_tensors(mode)]
            cached = np.array(sorted(cache.ids(mode, digest)), np.int64)
            adopted += filler.adopt(cache, mode, digest, cached[np.isin(cached, lacking)])
        reader = IndexReader(layout.root)
        backlog = find_missing(reader, wanted, recipe.targets, rows)
        progress.total = len(backlog)
        filled = filler.run(reader, backlog)
        reader = IndexReader(layout.root)
        train_where_due(
            reader.vector_reader, lambda encoder: on_event(BuildEvent("training", encoder, total=len(reader)))
        )
    return FillReport(
        index=index_name(layout.root),
        model=recipe.settings.model,
        modes=wanted.modes,
        items=len(reader),
        completed=filled.items,
        adopted=adopted,
        incomplete=filled.unavailable,
        coverage=coverage(reader),
        speeds=clock.speeds(),
    )


class _Progress:
    """Tells of a fill what a build tells."""

    def __init__(self, on_event: Callable[[BuildEvent], None], clock: StageClock) -> None:
        self._on_event, self._clock = on_event, clock
        self._done = self.total = 0

    def advance(self, count: int) -> None:
        self._done += count
        self._on_event(BuildEvent("batch", "", self._done, self.total, speeds=self._clock.speeds()))

    def committed(self) -> None:
        self._on_event(BuildEvent("committed", "", self._done, self.total))


def _modes(reader: IndexReader, model: str, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the modes to fill: those asked for, which the index must have."""
    has = reader.generation.modes
    if asked is None:
        return has
    wanted = tuple(mode.name for mode in choose_modes(describe_extractor(model).modes, asked))
    missing = [mode for mode in wanted if mode not in has]
    if missing:
        raise lacks_modes(reader, missing)
    return wanted
