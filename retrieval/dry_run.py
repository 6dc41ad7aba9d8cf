"""Say what a build would do and take, and write nothing."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

from index_store.layout import Layout
from index_store.mirror import index_name
from index_store.reader import IndexReader
from retrieval.backlog import Backlog, find_backlog
from retrieval.build import was_committed
from retrieval.compiled import compile_models
from retrieval.estimate import Load, estimate_load
from retrieval.events import BuildPlan
from retrieval.ingest import Failure, read_batches
from retrieval.models import Models, load_models
from retrieval.modes import Need
from retrieval.pace import batch_size, workers
from retrieval.plan import continued_recipe, grown_fingerprint, new_recipe
from retrieval.settings import BuildSettings, ModelChoices
from retrieval.work import find_sources, plan_work

TIMED_BATCHES = 2  # the first warms up


def plan_build(
    sources: str | Path | Sequence[str | Path],
    index: str | Path | None = None,
    *,
    modes: Sequence[str] | None = None,
    run: BuildSettings | None = None,
    **choices: Unpack[ModelChoices],
) -> BuildPlan:
    """Say what :func:`retrieval.build.build_index` would do with the same arguments; a few images are computed for it.

    Raises:
        UsageError, IndexIncompatibleError, IndexCorruptError, ModelError, DependencyError: as the build would.
    """
    paths, listing, root = find_sources(sources, index)
    run = run or BuildSettings()
    reader = IndexReader(root) if was_committed(Layout(root)) else None
    asked = (modes, choices, run)
    recipe = continued_recipe(reader, root, *asked) if reader else new_recipe(*asked)
    work = plan_work(listing, paths, reader, run.retry_rejects)
    plan = BuildPlan(
        index=index_name(root),
        model=recipe.chosen.name,
        why=recipe.chosen.why,
        modes=tuple(recipe.targets),
        new=len(work.pending) - len(work.replaced),
        changed=len(work.replaced),
        moved=len(work.moved),
        vanished=len(work.vanished),
        unchanged=work.unchanged,
        rejected_before=work.rejected_before,
        passed_over=listing.passed_over,
    )
    backlog = Backlog()
    if reader is not None:
        gone = {*work.vanished, *work.replaced.values()}
        backlog = find_backlog(reader, recipe.wanted, recipe.targets, without=gone, moved=work.moved)
        plan = replace(plan, to_complete=len(backlog))
    if not work.pending and not backlog:
        return plan
    models = load_models(recipe.settings, recipe.targets, run.device, run.offline)
    if reader is not None:
        grown_fingerprint(reader.generation.fingerprint, models.fingerprint(), root)
    load = Load(len(work.pending), recipe.wanted.modes, backlog)
    estimate = estimate_load(models, recipe.settings, run, root, load)
    if run.compile and recipe.wanted.modes:  # what is timed is what the build would run
        models = compile_models(models, batch_size(recipe.settings, run))
    parts = [(recipe.wanted, work.pending), *((job.need, [Path(i.uri) for i in job.items]) for job in backlog.jobs)]
    seconds, images = _seconds(models, parts, batch_size(recipe.settings, run), run)
    if not images:
        return replace(plan, estimate=estimate)
    return replace(plan, estimate=estimate, seconds_an_image=seconds / images, seconds=seconds)


def _seconds(
    models: Models, parts: Iterable[tuple[Need, Sequence[Path]]], batch: int, run: BuildSettings
) -> tuple[float, int]:
    """Time the first batches of every part; return the seconds that all of them take, and their images.

    A part none of whose first images can be used is left out.
    """
    seconds, images = 0.0, 0
    for need, files in parts:
        pace = _seconds_an_image(models, need, files[: TIMED_BATCHES * batch], batch, run)
        if pace is not None:
            seconds, images = seconds + pace * len(files), images + len(files)
    return seconds, images


def _seconds_an_image(
    models: Models, need: Need, files: Sequence[Path], batch: int, run: BuildSettings
) -> float | None:
    """Compute ``files`` and return the last batch's time a file; None where no image of them can be used."""
    pace = None
    batches = read_batches(files, batch, workers(run), models.rules, partial(models.prepare, need=need))
    start = time.perf_counter()
    for found in batches:
        good = [outcome[1] for outcome in found.outcomes if not isinstance(outcome, Failure)]
        if good:
            models.encode_stored(good, need)
            pace = (time.perf_counter() - start) / len(found.files)
        start = time.perf_counter()
    return pace
