"""Build or update an index: plan, encode image after image, commit segment after segment.

A build can be stopped at any moment, by Ctrl-C or by a kill. What was committed stays. The next build goes on from
there and computes the same batches, so the index ends up bit by bit like that of an uninterrupted build.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

from index_store.commit import commit
from index_store.generation import Generation
from index_store.layout import Layout
from index_store.locate import was_committed
from index_store.lock import writer_lock
from index_store.reader import IndexReader
from index_store.remote.mirror import index_name
from retrieval.encoding.batches import workers
from retrieval.encoding.loaded_models import LoadedModels, LoadModels, load_models
from retrieval.encoding.recipe import new_recipe
from retrieval.encoding.stored_tensors import coverage, with_projections
from retrieval.encoding.timing import StageClock
from retrieval.images.discovery import Listing, Paths
from retrieval.indexing import planning
from retrieval.indexing.changes import find_sources
from retrieval.indexing.committer import SegmentCommitter, clear_leftovers
from retrieval.indexing.filler import Filled, Filler
from retrieval.indexing.missing import find_missing
from retrieval.indexing.pipeline import Pipeline
from retrieval.indexing.planning import Plan, Prepared
from retrieval.indexing.reports import BuildReport, OnBuildProgress
from retrieval.indexing.segment_job import FinishedSegment, SegmentJob, segment_job
from retrieval.indexing.sources.copies import ContentCopier
from retrieval.indexing.sources.places import missing_elsewhere
from retrieval.indexing.tally import ProgressTally
from retrieval.indexing.training import calibrate_where_due, open_trained
from retrieval.indexing.workers.driver import Driver
from retrieval.indexing.workers.opening import worker_pool
from retrieval.indexing.workers.pool import WorkerPool
from retrieval.indexing.workers.processes import begin_workers
from retrieval.progress import Cancellation, ignore_progress
from retrieval.settings import BuildSettings, ModelChoices
from retrieval.version import CREATED_BY


def build_index(
    sources: str | Path | Sequence[str | Path],
    index: str | Path | None = None,
    *,
    modes: Sequence[str] | None = None,
    run: BuildSettings | None = None,
    on_progress: OnBuildProgress = ignore_progress,
    cancel: Cancellation | None = None,
    load: LoadModels = load_models,
    only: Callable[[Listing], Listing] | None = None,
    **choices: Unpack[ModelChoices],
) -> BuildReport:
    """Make an index of the images in ``sources``, or bring an existing index up to date with them.

    Args:
        sources: folders (walked recursively) and files.
        index: its folder or object-store URL; by default FOLDER.diffsim in the working directory.
        modes: kinds of similarity to store tensors for. The default is the index's own modes, or those of the model
            for a new index. New modes are added to an existing index and computed for all its items.
        run: device, batch size and the like. They don't change scores.
        on_progress: called at every step; an exception that it raises stops the build.
        cancel: stops the build between batches when another thread asks for it.
        load: loads the models; pass a function that returns loaded ones to share them, or a stub in tests.
        only: chooses images among those that were found; the index is one of these alone.
        **choices: fields of :class:`retrieval.settings.ModelSettings`. An existing index keeps its own values for
            the others. New encoders are added to it.

    Raises:
        UsageError: there is nothing to index, or a name is unknown.
        IndexIncompatibleError: the index was made with other settings or weights.
        IndexLockedError, IndexCorruptError, ModelError, NoSpaceError: see :mod:`index_store.errors`.
        KeyboardInterrupt, CancelledError: the build was stopped; complete batches are committed.
    """
    started = time.monotonic()
    run = run or BuildSettings()
    begin_workers(run.pool)
    paths, listing, root = find_sources(sources, index, run)
    listing, layout = listing if only is None else only(listing), Layout(root)
    fresh = None if was_committed(layout) else new_recipe(modes, choices, run)  # refuses bad settings before any write
    with writer_lock(layout), _removed_if_empty(layout):
        plan = planning.plan(root, paths, listing, modes, choices, run, fresh, on_progress)
        tally = ProgressTally(on_progress, StageClock(workers(run)), plan.images + len(plan.changes.copies))
        tally.tell("planned", plan.summary)
        tally.tell("model", plan.model)
        generation, prepared = _load(plan, clear_leftovers(layout, plan.reader), run, load, tally)
        pipeline = None if prepared is None else Pipeline.begin(prepared.models, prepared.run, tally.clock)
        committer = SegmentCommitter(layout, generation, run, tally, cancel, plan.sources)
        committer.apply_moves(plan.changes)
        with worker_pool(plan, prepared, load) as pool:
            if pool is not None and pipeline is not None:
                _have_workers_add(plan, pipeline.batch, pool, committer)
            else:
                _add_new_images(plan.changes.pending, plan, pipeline, committer)
            pipeline = _copy_known_images(plan, pipeline, committer, load)
            filled = _fill_older_items(plan, pipeline, committer, pool)
            committer.note_sources()
            reader = open_trained(root, on_progress)
            models = partial(_models, pipeline, plan, run, load)
            calibrate_where_due(reader, models, on_progress, cancel, pool)
    report = _report(plan, listing, committer, filled, reader)
    gone = missing_elsewhere(reader, paths)
    return replace(report, gone_elsewhere=gone, seconds=time.monotonic() - started)


@contextmanager
def _removed_if_empty(layout: Layout) -> Iterator[None]:
    """After an error, remove the folder that was made for the lock of a new index, unless it has other files."""
    try:
        yield
    except BaseException:
        if not was_committed(layout) and layout.root.is_dir() and [p.name for p in layout.root.iterdir()] == ["LOCK"]:
            layout.lock.unlink(missing_ok=True)
            with suppress(OSError):  # a link to the folder stays
                layout.root.rmdir()
        raise


def _load(
    plan: Plan, found: Generation | None, run: BuildSettings, load: LoadModels, tally: ProgressTally
) -> tuple[Generation, Prepared | None]:
    """Load the models where the plan needs them, check disk and memory, and commit what the index will have.

    Raises:
        NoSpaceError: the disk or the memory is too small; the message and its advice say what would fit.
    """
    if found is not None and not plan.needs_models:
        return found, None
    prepared = planning.prepare(plan, run, load)
    if plan.images:
        planning.check_room(plan, prepared, tally)
    generation = _add_modes_and_encoders(found or Generation(0, {}, {}, plan.sources, (), ()), plan, prepared)
    tally.tell("loaded")
    return generation, prepared


def _models(pipeline: Pipeline | None, plan: Plan, run: BuildSettings, load: LoadModels) -> LoadedModels:
    """Return the models that the build has loaded, or load them."""
    return planning.prepare(plan, run, load).models if pipeline is None else pipeline.models


def _add_modes_and_encoders(generation: Generation, plan: Plan, prepared: Prepared) -> Generation:
    """Return ``generation`` with the modes and encoders of the plan; commit it if the index does not have them yet.

    For a new index that commits an empty generation: a lost CURRENT is never taken for a new index then.
    """
    layout = Layout(plan.root)
    grown = replace(
        generation,
        fingerprint=prepared.fingerprint,
        settings=generation.settings if plan.is_as_stored else plan.recipe.to_json(),
        encoders=tuple(dict.fromkeys((*generation.encoders, *prepared.fingerprint["encoders"]))),
        modes=tuple(plan.recipe.targets),
        tensors=plan.recipe.tensors,
    )
    if plan.is_as_stored and not plan.misses_projections:
        return grown
    return commit(layout, with_projections(layout, grown, prepared.models), CREATED_BY)


def _add_new_images(files: Sequence[Path], plan: Plan, pipeline: Pipeline | None, committer: SegmentCommitter) -> None:
    """Encode new and changed files into segments, and commit each."""
    if pipeline is None:
        return

    def write(name: str, part: slice) -> FinishedSegment:
        first_id, seconds = committer.generation.next_id, committer.run.commit_seconds
        job = SegmentJob(plan.root, name, files[part], first_id, plan.wanted, seconds, committer.sources)
        return segment_job(job, pipeline, committer.tally.of_job(), committer.cancel)

    committer.commit_all(len(files), pipeline.batch, write, plan.changes.replaced)


def _have_workers_add(plan: Plan, batch: int, pool: WorkerPool, committer: SegmentCommitter) -> None:
    """Have workers encode new and changed files into segments, and commit each."""
    files, first_id = plan.changes.pending, committer.generation.next_id

    def job(name: str, part: slice) -> SegmentJob:
        first = first_id + part.start
        return SegmentJob(plan.root, name, files[part], first, plan.wanted, sources=committer.sources)

    Driver(Layout(plan.root), committer, pool, batch).run(len(files), job, plan.changes.replaced)


def _copy_known_images(
    plan: Plan, pipeline: Pipeline | None, committer: SegmentCommitter, load: LoadModels
) -> Pipeline | None:
    """Add files whose content is known; encode those whose content turned out unusable, with models if need be."""
    before = committer.added
    left = ContentCopier(Layout(plan.root), committer).run(plan.changes.copies, plan.changes.replaced)
    committer.copied = committer.added - before
    if left and pipeline is None:
        prepared = planning.prepare(plan, committer.run, load)
        pipeline = Pipeline.begin(prepared.models, prepared.run, committer.tally.clock)
    _add_new_images(Paths([file.name for file in left]), plan, pipeline, committer)
    return pipeline


def _fill_older_items(
    plan: Plan, pipeline: Pipeline | None, committer: SegmentCommitter, pool: WorkerPool | None
) -> Filled:
    """Compute or copy the outputs that older items miss, such as those of an added mode."""
    if pipeline is None or not plan.missing:
        return Filled(0, plan.missing.unavailable)
    reader = IndexReader(plan.root)  # opened again: moves were committed, and files may have changed meanwhile
    missing = find_missing(reader, plan.wanted)
    committer.tally.total += len(missing) - len(plan.missing)  # a copy may miss the same as its original
    return Filler(pipeline, committer, pool).run(reader, missing)


def _report(
    plan: Plan, listing: Listing, committer: SegmentCommitter, filled: Filled, reader: IndexReader
) -> BuildReport:
    return BuildReport(
        index=index_name(plan.root),
        model=plan.recipe.settings.model,
        modes=reader.generation.modes,
        items=len(reader),
        added=committer.added,
        replaced=committer.replaced,
        moved=len(plan.changes.moved) - len(plan.changes.revived),
        copied=committer.copied,
        revived=len(plan.changes.revived),
        withheld=dict(plan.changes.withheld),
        removed=len(plan.changes.vanished),
        unchanged=plan.changes.unchanged,
        rejected=dict(Counter(reject.reason for reject in reader.rejects())),
        passed_over=listing.passed_over,
        passed_over_endings=dict(listing.endings),
        partial=committer.partial,
        unreadable_folders=tuple(str(path) for path in listing.unreadable),
        completed=filled.items,
        incomplete=filled.unavailable,
        coverage=coverage(reader),
        speeds=committer.tally.clock.speeds(),
    )
