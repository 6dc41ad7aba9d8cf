"""Report what a build would do and need, and write nothing."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np

from index_store.catalog import Item
from index_store.reader import IndexReader
from index_store.remote.mirror import index_name
from retrieval.encoding.batches import Failure, read_batches, workers
from retrieval.encoding.loaded_models import LoadedModels, LoadModels, load_models
from retrieval.images.discovery import Listing
from retrieval.indexing import planning
from retrieval.indexing.changes import find_sources
from retrieval.indexing.estimate import find_problem, memory_problem
from retrieval.indexing.missing import Missing, items_of
from retrieval.indexing.planning import Plan, Prepared
from retrieval.indexing.reports import BuildPlan
from retrieval.models.modes import Outputs
from retrieval.settings import BuildSettings, ModelChoices

TIMED_SECONDS = 2.0  # a group of images is timed for this long, but for two batches at least: the first one warms up
TIMED_BATCHES = 20  # at most


def plan_build(
    sources: str | Path | Sequence[str | Path],
    index: str | Path | None = None,
    *,
    modes: Sequence[str] | None = None,
    run: BuildSettings | None = None,
    load: LoadModels = load_models,
    **choices: Unpack[ModelChoices],
) -> BuildPlan:
    """Report what :func:`retrieval.indexing.build.build_index` would do. A few images are computed, to time them.

    Args:
        sources: as for a build.
        index: as for a build.
        modes: as for a build.
        run: as for a build.
        load: loads the models; pass a function that returns loaded ones to share them, or a stub in tests.
        **choices: as for a build.

    Raises:
        UsageError, IndexIncompatibleError, IndexCorruptError, ModelError, DependencyError: as the build would.
    """
    run = run or BuildSettings()
    paths, listing, root = find_sources(sources, index, run)
    plan = planning.plan(root, paths, listing, modes, choices, run)
    report = _counts(plan, listing)
    if not plan.images:
        return report
    prepared = planning.prepare(plan, run, load)
    estimate = planning.estimate(plan, prepared)
    report = replace(report, estimate=estimate)
    if problem := find_problem(estimate, root):
        report = replace(report, problem=str(problem), advice=problem.advice, advice_facts=problem.facts)
    if memory_problem(estimate):
        return report  # a batch would exhaust the memory of this machine
    seconds, images = _seconds(prepared, _groups(plan, prepared.run.batch_size or 1))
    return replace(report, seconds_an_image=seconds / images, seconds=seconds) if images else report


def _counts(plan: Plan, listing: Listing) -> BuildPlan:
    changes, chosen = plan.changes, plan.recipe.chosen
    return BuildPlan(
        index=index_name(plan.root),
        model=chosen.name,
        why=chosen.why,
        modes=tuple(plan.recipe.targets),
        new=len(changes.pending) + len(changes.copies) - len(changes.replaced),
        changed=len(changes.replaced),
        moved=len(changes.moved) - len(changes.revived),
        copied=len(changes.copies),
        revived=len(changes.revived),
        withheld=dict(changes.withheld),
        vanished=len(changes.vanished),
        unchanged=changes.unchanged,
        rejected_before=changes.rejected_before,
        passed_over=listing.passed_over,
        passed_over_endings=dict(listing.endings),
        to_complete=len(plan.missing),
    )


@dataclass(frozen=True)
class _Group:
    """Images that need the same outputs."""

    outputs: Outputs
    first: Sequence[Path]  # these are timed
    images: int


def _groups(plan: Plan, batch: int) -> Iterator[_Group]:
    """Yield the new images, then the older items by what they miss."""
    pending = plan.changes.pending
    yield _Group(plan.wanted, pending[: TIMED_BATCHES * batch], len(pending))
    if plan.reader is not None:
        yield from _to_complete(plan.reader, plan.missing, {item.id: item for item in plan.changes.moved}, batch)


def _to_complete(reader: IndexReader, missing: Missing, moved: Mapping[int, Item], batch: int) -> Iterator[_Group]:
    for job in missing.jobs:
        first = [Path(item.uri) for item in items_of(reader, job.rows[: TIMED_BATCHES * batch], moved)]
        yield _Group(job.outputs, first, len(job.rows))


def _seconds(prepared: Prepared, groups: Iterable[_Group]) -> tuple[float, int]:
    """Time the first batches of every group; return the seconds for all images, and the number of images.

    A group is left out if none of its first images can be used.
    """
    seconds, images = 0.0, 0
    for group in groups:
        an_image = _seconds_an_image(prepared.models, prepared.run, group)
        if an_image is not None:
            seconds, images = seconds + an_image * group.images, images + group.images
    return seconds, images


def _seconds_an_image(models: LoadedModels, run: BuildSettings, group: _Group) -> float | None:
    """Encode the first images of a group; return the median time of a file, or None if no image can be used.

    The first batch warms up. It counts only if there is no other.
    """
    timed: list[float] = []
    prepare = partial(models.prepare, outputs=group.outputs)
    batches = read_batches(group.first, run.batch_size or 1, workers(run), models.rules, prepare)
    begun = start = time.perf_counter()
    with closing(batches):
        for found in batches:
            good = [outcome[1] for outcome in found.outcomes if not isinstance(outcome, Failure)]
            if good:
                models.encode_stored(good, group.outputs)
                timed.append((time.perf_counter() - start) / len(found.files))
            start = time.perf_counter()
            if len(timed) > 1 and start - begun > TIMED_SECONDS:
                break
    return float(np.median(timed[1:] or timed)) if timed else None
