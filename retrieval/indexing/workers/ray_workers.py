"""Workers on a Ray cluster: actors, each with its share of a machine's processors and GPUs."""

import logging
import os
from contextlib import suppress
from importlib import import_module
from typing import Any

from retrieval.errors import DependencyError, DiffSimError
from retrieval.indexing.segment_job import FinishedSegment, SegmentJob
from retrieval.indexing.workers.worker import SegmentWorker, WorkerLostError, WorkerSpec
from retrieval.settings import WorkerSettings

PASSED_ON = ("AWS_", "DIFFSIM_", "HF_", "HUGGINGFACE_")  # beginnings of variables that workers get from the driver


def connect(address: str | None) -> None:
    """Join the Ray cluster at ``address``; None starts one on this machine. A joined cluster stays joined.

    Raises:
        DependencyError: Ray is not installed.
        DiffSimError: the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise DependencyError("Ray is not installed: install diffsim-retrieval[ray]") from error
    if ray.is_initialized():
        return
    try:
        ray.init(address=address, include_dashboard=None if address else False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and errors of gRPC
        raise DiffSimError(f"the Ray cluster at {address or 'this machine'} can't be joined ({error})") from error


def cluster_workers(settings: WorkerSettings) -> int:
    """Return how many workers the joined cluster has room for now, at least one."""
    ray: Any = import_module("ray")
    found = ray.cluster_resources()
    rooms = [found.get("CPU", 1.0) / settings.cpus] if settings.cpus else []
    rooms += [found.get("GPU", 0.0) / settings.gpus] if settings.gpus else []
    return max(1, int(min(rooms, default=1)))


def worker_environment() -> dict[str, str]:
    """Return the driver's variables that workers need: those of object stores, model caches and mirrors."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


class RayWorker:
    """A worker in a Ray actor."""

    def __init__(self, spec: WorkerSpec, settings: WorkerSettings) -> None:
        """Start the actor where the cluster has room, and wait until its models are loaded.

        Raises:
            WorkerLostError: the actor or its machine ended before.
            DiffSimError: see :class:`retrieval.indexing.workers.worker.SegmentWorker`.
        """
        ray: Any = import_module("ray")
        remote = ray.remote(
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
            max_restarts=0,
            runtime_env={"env_vars": worker_environment()},
        )(SegmentWorker)
        self._actor: Any = remote.remote(spec)
        self.pid: int = self._answer(self._actor.ready.remote())

    def write(self, job: SegmentJob) -> FinishedSegment:
        """See :class:`retrieval.indexing.workers.worker.Worker`."""
        found: FinishedSegment = self._answer(self._actor.write.remote(job))
        return found

    def _answer(self, reference: Any) -> Any:
        import ray
        from ray import exceptions

        try:
            return ray.get(reference)
        except exceptions.RayTaskError as error:  # raised in the worker: hand on the error itself
            raise error.cause if isinstance(error.cause, BaseException) else error from None
        except (exceptions.RayActorError, exceptions.RaySystemError, exceptions.OutOfMemoryError) as error:
            raise WorkerLostError(f"a Ray worker ended in the middle of its work ({_first_line(error)})") from error

    def close(self) -> None:
        """Kill the actor: a segment that it is writing does not count yet."""
        import ray

        with suppress(Exception):  # the cluster may be gone as well
            ray.kill(self._actor)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
