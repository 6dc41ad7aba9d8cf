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
from retrieval.indexing.workers.worker import AnySpec, VerifierSpec, WorkerSpec
from retrieval.settings import WorkerSettings


@contextmanager
def worker_pool(plan: Plan, prepared: Prepared | None, load: LoadModels) -> Iterator[WorkerPool | None]:
    """Yield the pool of workers that the run of ``prepared`` asks for, and end them all afterwards.

    It is None where the run asks for none, or the plan has no images.

    Raises:
        DependencyError, DiffSimError: see :func:`retrieval.devices.ray_cluster.connect`.
    """
    if prepared is None or prepared.run.pool is None or not plan.images:
        yield None
        return
    settings = prepared.run.pool
    if settings.kind == "ray":
        threads = max(1, int(settings.cpus))
    else:
        threads = max(1, (os.cpu_count() or 1) // (settings.count or os.cpu_count() or 1))
    recipe, run = plan.recipe, replace(prepared.run, pool=None)
    place = _place(plan.root)
    spec = WorkerSpec(place, recipe.settings, recipe.targets, prepared.fingerprint, run, threads, load)
    with _pool(spec, settings) as pool:
        yield pool


@contextmanager
def verifier_pool(root: Path, settings: WorkerSettings) -> Iterator[WorkerPool]:
    """Yield a pool of workers that look for damage in the index at ``root``; end them all afterwards.

    Raises:
        DependencyError, DiffSimError: see :func:`worker_pool`.
    """
    with _pool(VerifierSpec(_place(root)), settings) as pool:
        yield pool


@contextmanager
def _pool(spec: AnySpec, settings: WorkerSettings) -> Iterator[WorkerPool]:
    opener: OpenWorker
    if settings.kind == "ray":
        connect(settings.address)
        opener, size = partial(RayWorker, spec, settings), settings.count or cluster_workers(settings)
    else:
        opener, size = partial(ProcessWorker, spec), settings.count or os.cpu_count() or 1
    pool = WorkerPool(opener, size)
    try:
        yield pool
    finally:
        pool.close()


def _place(root: Path) -> str:
    """Return the index as workers find it: its URL, or its folder from the root of the file system."""
    name = index_name(root)
    return name if "://" in name else str(Path(name).absolute())
