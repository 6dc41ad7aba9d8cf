"""Open the pool of workers that a build was asked to use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from index_store.remote.mirror import index_name
from retrieval.devices.ray_cluster import connect
from retrieval.encoding.loaded_models import LoadModels
from retrieval.indexing.planning import Plan, Prepared
from retrieval.indexing.workers.pool import OpenWorker, WorkerPool
from retrieval.indexing.workers.processes import ProcessWorker
from retrieval.indexing.workers.ray_workers import RayWorker, cluster_workers
from retrieval.indexing.workers.worker import WorkerSpec
from retrieval.settings import WorkerSettings


@contextmanager
def worker_pool(plan: Plan, prepared: Prepared, settings: WorkerSettings, load: LoadModels) -> Iterator[WorkerPool]:
    """Yield the pool of workers that ``settings`` describe; end them all afterwards.

    Raises:
        DependencyError, DiffSimError: see :func:`retrieval.indexing.workers.ray_workers.connect`.
    """
    opener, size = _opener(plan, prepared, settings, load)
    pool = WorkerPool(opener, size)
    try:
        yield pool
    finally:
        pool.close()


def _opener(plan: Plan, prepared: Prepared, settings: WorkerSettings, load: LoadModels) -> tuple[OpenWorker, int]:
    run = replace(prepared.run, pool=None)
    spec = WorkerSpec(
        _place(plan.root), plan.recipe.settings, plan.recipe.targets, prepared.fingerprint, run, load=load
    )
    if settings.kind == "ray":
        connect(settings.address)
        spec = replace(spec, threads=max(1, int(settings.cpus)))
        return partial(RayWorker, spec, settings), settings.count or cluster_workers(settings)
    size = settings.count or os.cpu_count() or 1
    return partial(ProcessWorker, replace(spec, threads=max(1, (os.cpu_count() or 1) // size))), size


def _place(root: Path) -> str:
    """Return the index as workers find it: its URL, or its folder from the root of the file system."""
    name = index_name(root)
    return name if "://" in name else str(Path(name).absolute())
