"""Say what a build would do and take, and write nothing."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np

from index_store.catalog import Item
from index_store.layout import Layout
from index_store.locate import was_committed
from index_store.reader import IndexReader
from index_store.remote.mirror import index_name
from retrieval.encoding.batches import Failure, batch_size, read_batches, workers
from retrieval.encoding.fingerprint import grown_fingerprint
from retrieval.encoding.loaded_models import LoadedModels, load_models
from retrieval.encoding.recipe import continued_recipe, new_recipe
from retrieval.indexing.changes import find_changes, find_sources
from retrieval.indexing.estimate import Workload, disk_problem, estimate_workload, memory_problem
from retrieval.indexing.missing import Missing, find_missing, items_of
from retrieval.indexing.reports import BuildPlan
from retrieval.models.modes import Outputs
from retrieval.settings import BuildSettings, ModelChoices

TIMED_SECONDS = 2.0  # at least two batches, the first of which warms up
TIMED_BATCHES = 20  # at most


def plan_build(
    sources: str | Path | Sequence[str | Path],
    index: str | Path | None = None,
    *,
    modes: Sequence[str] | None = None,
    run: BuildSettings | None = None,
    **choices: Unpack[ModelChoices],
) -> BuildPlan:
    """Say what :func:`retrieval.indexing.build.build_index` would do; a few images are computed.

    Raises:
        UsageError, IndexIncompatibleError, IndexCorruptError, ModelError, DependencyError: as the build would.
    """
    paths, listing, root = find_sources(sources, index)
    run = run or BuildSettings()
    reader = IndexReader(root) if was_committed(Layout(root)) else None
    asked = (modes, choices, run)
    recipe = continued_recipe(reader, root, *asked) if reader else new_recipe(*asked)
    work = find_changes(listing, paths, reader, run.retry_rejects)
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
    backlog = Missing()
    if reader is not None:
        gone = {*work.vanished, *work.replaced.values()}
        backlog = find_missing(reader, recipe.wanted, recipe.targets, without=gone, moved=work.moved)
        plan = replace(plan, to_complete=len(backlog))
    if not work.pending and not backlog:
        return plan
    models = load_models(recipe.settings, recipe.targets, run.device, run.offline)
    if reader is not None:
        grown_fingerprint(reader.generation.fingerprint, models.fingerprint(), root)
    load = Workload(len(work.pending), recipe.wanted.modes, backlog)
    estimate = estimate_workload(models, recipe.settings, run, root, load)
    plan = replace(plan, estimate=estimate, problem=disk_problem(estimate, root) or memory_problem(estimate))
    if memory_problem(estimate):
        return plan  # timing it would end this machine
    batch = batch_size(recipe.settings, run)
    parts = [_Part(recipe.wanted, work.pending[: TIMED_BATCHES * batch], len(work.pending))]
    if reader is not None:
        parts += _to_complete(reader, backlog, {item.id: item for item in work.moved}, batch)
    seconds, images = _seconds(models, parts, batch, run)
    return replace(plan, seconds_an_image=seconds / images, seconds=seconds) if images else plan


@dataclass(frozen=True)
class _Part:
    """Images that need the same."""

    need: Outputs
    first: Sequence[Path]  # those that are timed
    images: int


def _to_complete(reader: IndexReader, backlog: Missing, moved: Mapping[int, Item], batch: int) -> Iterator[_Part]:
    for job in backlog.jobs:
        first = [Path(item.uri) for item in items_of(reader, job.rows[: TIMED_BATCHES * batch], moved)]
        yield _Part(job.need, first, len(job.rows))


def _seconds(models: LoadedModels, parts: Iterable[_Part], batch: int, run: BuildSettings) -> tuple[float, int]:
    """Time the first batches of every part; return the seconds that all of them take, and their images.

    A part none of whose first images can be used is left out.
    """
    seconds, images = 0.0, 0
    for part in parts:
        pace = _seconds_an_image(models, part.need, part.first, batch, run)
        if pace is not None:
            seconds, images = seconds + pace * part.images, images + part.images
    return seconds, images


def _seconds_an_image(
    models: LoadedModels, need: Outputs, files: Sequence[Path], batch: int, run: BuildSettings
) -> float | None:
    """Compute some of ``files`` and return the time a file; None where no image of them can be used.

    The first batch, which warms up, counts only where it is the only one.
    """
    paces: list[float] = []
    batches = read_batches(files, batch, workers(run), models.rules, partial(models.prepare, need=need))
    begun = start = time.perf_counter()
    with closing(batches):
        for found in batches:
            good = [outcome[1] for outcome in found.outcomes if not isinstance(outcome, Failure)]
            if good:
                models.encode_stored(good, need)
                paces.append((time.perf_counter() - start) / len(found.files))
            start = time.perf_counter()
            if len(paces) > 1 and start - begun > TIMED_SECONDS:
                break
    return float(np.median(paces[1:] or paces)) if paces else None
