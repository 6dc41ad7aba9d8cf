"""Workers on a Ray cluster: actors, each with its share of a machine's processors and GPUs."""

from contextlib import suppress
from typing import Any

from retrieval.devices.ray_cluster import ActorLostError, answer_of, cluster_resources, kill_actor, start_actor
from retrieval.errors import WorkerLostError
from retrieval.indexing.workers.worker import AnySpec, Job
from retrieval.settings import WorkerSettings

END_SECONDS = 2.0  # for an actor to remove its files


def cluster_workers(settings: WorkerSettings) -> int:
    """Return how many workers the joined cluster has room for now, at least one."""
    found = cluster_resources()
    rooms = [found.get("CPU", 1.0) / settings.cpus] if settings.cpus else []
    rooms += [found.get("GPU", 0.0) / settings.gpus] if settings.gpus else []
    return max(1, int(min(rooms, default=1)))


class _Opened:
    """The actor: the worker that a specification opens."""

    def __init__(self, spec: AnySpec) -> None:
        self._worker = spec.open()

    def ready(self) -> int:
        return self._worker.ready()

    def do(self, job: Job) -> Any:
        return self._worker.do(job)

    def end(self) -> None:
        self._worker.close()


class RayWorker:
    """A worker in a Ray actor."""

    def __init__(self, spec: AnySpec, settings: WorkerSettings) -> None:
        """Start the actor where the cluster has room, and wait until the worker in it is open.

        Raises:
            WorkerLostError: the actor or its machine ended before.
            DiffSimError: the worker can't be opened.
        """
        self._actor: Any = start_actor(_Opened, spec, num_cpus=settings.cpus, num_gpus=settings.gpus)
        self.pid: int = self._answer(self._actor.ready.remote())

    def do(self, job: Job) -> Any:
        """See :class:`retrieval.indexing.workers.worker.Worker`."""
        return self._answer(self._actor.do.remote(job))

    def _answer(self, reference: Any) -> Any:
        try:
            return answer_of(reference)
        except ActorLostError as error:
            raise WorkerLostError(f"a Ray worker ended in the middle of its work ({error})") from error

    def close(self) -> None:
        """See :class:`retrieval.indexing.workers.worker.Worker`."""
        with suppress(ActorLostError, TimeoutError):
            answer_of(self._actor.end.remote(), END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """See :class:`retrieval.indexing.workers.worker.Worker`."""
        kill_actor(self._actor)
