"""Fill an index: compute, copy or take from the cache what its items miss, and commit segment after segment.

A fill can be stopped at any moment; the next fill goes on with what is still missing. Stored outputs are never
computed again. A file that is not the indexed one any more is left out.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from index_store.layout import Layout
from index_store.locate import require_index
from index_store.lock import writer_lock
from index_store.reader import IndexReader
from index_store.remote.mirror import index_name
from index_store.remote.pull import existing_root
from index_store.tensors.cache import TensorCache
from retrieval.encoding.batches import workers
from retrieval.encoding.fingerprint import tensors_digest
from retrieval.encoding.loaded_models import LoadModels, load_models
from retrieval.encoding.stored_tensors import coverage
from retrieval.encoding.timing import StageClock
from retrieval.indexing import planning
from retrieval.indexing.committer import SegmentCommitter, clear_leftovers
from retrieval.indexing.fill_order import check_order, in_order
from retrieval.indexing.filler import Filled, Filler
from retrieval.indexing.missing import find_missing
from retrieval.indexing.pipeline import Pipeline
from retrieval.indexing.planning import Plan, Prepared
from retrieval.indexing.reports import FillReport, OnBuildProgress
from retrieval.indexing.tally import ProgressTally
from retrieval.indexing.training import calibrate_where_due, open_trained
from retrieval.indexing.workers.opening import worker_pool
from retrieval.indexing.workers.pool import WorkerPool
from retrieval.indexing.workers.processes import begin_workers
from retrieval.progress import Cancellation, ignore_progress
from retrieval.settings import NEWEST, BuildSettings
from retrieval.text import counted


def fill_index(
    index: str | Path,
    *,
    modes: Sequence[str] | None = None,
    order: Sequence[str] = (NEWEST,),
    weights: str | None = None,
    run: BuildSettings | None = None,
    on_progress: OnBuildProgress = ignore_progress,
    cancel: Cancellation | None = None,
    load: LoadModels = load_models,
) -> FillReport:
    """Compute the tensors and vectors that items of an index miss.

    Tensors that searches have computed are taken from their cache.

    Args:
        index: its folder or object-store URL.
        modes: the modes to fill; by default all modes of the index.
        order: the order of the images; see :func:`retrieval.indexing.fill_order.in_order`.
        weights: a folder in place of the one in the index's settings; it must hold the same weights.
        run: device, batch size, workers and the like. They don't change scores.
        on_progress: called at every step; an exception that it raises stops the fill.
        cancel: stops the fill between batches when another thread asks for it.
        load: loads the models; pass a function that returns loaded ones to share them, or a stub in tests.

    Raises:
        UsageError: an unknown mode or order.
        IndexIncompatibleError: the index was not built for a mode, or was made with other weights.
        IndexLockedError, IndexCorruptError, ModelError, NoSpaceError: see :mod:`index_store.errors`.
        KeyboardInterrupt, CancelledError: the fill was stopped; complete batches are committed.
    """
    started = time.monotonic()
    check_order(order)
    run = run or BuildSettings()
    begin_workers(run.pool)
    layout = Layout(require_index(existing_root(index)))
    with writer_lock(layout), ExitStack() as until_done:
        plan = planning.plan_fill(layout.root, modes, weights, run)
        prepare = cache(partial(planning.prepare, plan, run, load))
        tally = ProgressTally(on_progress, StageClock(workers(run)), plan.images)
        tally.tell("planned", f"{counted(plan.images, 'image')} to complete")
        generation = clear_leftovers(layout, plan.reader)
        adopted, filled, pool = 0, Filled(), None
        if generation is not None and (plan.missing or plan.missing.unavailable):
            tally.tell("model", plan.model)
            pool = until_done.enter_context(worker_pool(plan, prepare(), load))
            committer = SegmentCommitter(layout, generation, run, tally, cancel)
            adopted, filled = _fill(plan, order, prepare(), committer, pool)
        reader = open_trained(layout.root, on_progress)
        calibrate_where_due(reader, lambda: prepare().models, on_progress, cancel, pool)
    report = _report(plan, reader, adopted, filled, tally)
    return replace(report, seconds=time.monotonic() - started)


def _fill(
    plan: Plan,
    order: Sequence[str],
    prepared: Prepared,
    committer: SegmentCommitter,
    pool: WorkerPool | None,
) -> tuple[int, Filled]:
    """Do the work of ``plan``; return the number of tensors taken from the cache, and what was computed or copied."""
    tally, reader = committer.tally, IndexReader(plan.root)
    rows = in_order(reader, order, prepared.models)  # before any commit: it may name a picture that does not exist
    planning.check_room(plan, prepared, tally)
    pipeline = Pipeline.begin(prepared.models, prepared.run, tally.clock)
    filler = Filler(pipeline, committer)
    tally.tell("loaded")
    adopted, tensor_cache = 0, TensorCache(Layout(plan.root), budget=0)
    for name in plan.wanted.modes:
        adopted += filler.adopt(reader, tensor_cache, name, tensors_digest(prepared.fingerprint, name))
    reader = IndexReader(plan.root)
    missing = find_missing(reader, plan.wanted, rows)
    tally.total = len(missing)
    return adopted, Filler(pipeline, committer, pool).run(reader, missing)


def _report(plan: Plan, reader: IndexReader, adopted: int, filled: Filled, tally: ProgressTally) -> FillReport:
    return FillReport(
        index=index_name(plan.root),
        model=plan.recipe.settings.model,
        modes=plan.recipe.modes_of(plan.wanted.modes),
        items=len(reader),
        completed=filled.items,
        adopted=adopted,
        incomplete=filled.unavailable,
        coverage=coverage(reader),
        speeds=tally.clock.speeds(),
    )
