"""Replicas on a Ray cluster: actors, on as many machines as there are.

Plain actors behind a router, rather than deployments of Ray Serve: a question goes to every partition at once and needs
the answers of all, while Serve sends a request to any one replica of a deployment.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from index_store.remote.mirror import MIRRORS_VARIABLE, mirrors_folder
from index_store.remote.object_store import is_url
from retrieval.devices.ray_cluster import (
    ActorLostError,
    answer_of,
    cluster_resources,
    connect,
    kill_actor,
    shared_value,
    start_actor,
)
from retrieval.errors import ReplicaLostError
from retrieval.search.replicas.replica import Replica, ReplicaSpec
from retrieval.search.replicas.transport import AT_ONCE, Answer
from retrieval.settings import ReplicaSettings

logger = logging.getLogger(__name__)

OPENED_AGAIN = 2  # times: for some seconds Ray may choose a machine that has just gone away


class RayTransport:
    """Opens replicas as actors of a Ray cluster."""

    def __init__(self, spec: ReplicaSpec, settings: ReplicaSettings) -> None:
        """Join the cluster.

        Raises:
            DependencyError, DiffSimError: see :func:`retrieval.devices.ray_cluster.connect`.
        """
        connect(settings.address)
        self._spec, self._settings = spec, settings
        there, wanted = cluster_resources(), {"CPU": settings.cpus, "GPU": settings.gpus}
        scarce = [name for name, each in wanted.items() if settings.count * each > there.get(name, 0.0)]
        if scarce:
            logger.warning(
                "the Ray cluster has too few %ss for %d replicas; those without room wait until it grows",
                *(" and ".join(scarce), settings.count),
            )

    def open(self, number: int) -> "RayReplica":
        """See :class:`retrieval.search.replicas.transport.ReplicaTransport`; waits until the cluster has room."""
        for _ in range(OPENED_AGAIN):
            with suppress(ReplicaLostError):
                return RayReplica(self._spec, self._settings, number)
        return RayReplica(self._spec, self._settings, number)

    def share(self, value: Any) -> Any:
        """See :class:`retrieval.search.replicas.transport.ReplicaTransport`."""
        return shared_value(value)


class RayReplica:
    """A replica in a Ray actor."""

    def __init__(self, spec: ReplicaSpec, settings: ReplicaSettings, number: int) -> None:
        """Start the actor and wait until it answers.

        Raises:
            ReplicaLostError: the actor or its machine ended before.
        """
        # A mirror of its own, also beside other replicas of the machine: each drops what it does not hold.
        mirrors = {MIRRORS_VARIABLE: str(mirrors_folder() / f"replica-{number}")} if is_url(spec.index) else {}
        self._actor = start_actor(
            Replica,
            spec,
            variables=mirrors,
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
            max_concurrency=AT_ONCE,
            scheduling_strategy="SPREAD",
        )
        try:
            self.pid: int = _RayAnswer(self._actor.ready.remote()).result()
        except ReplicaLostError:
            kill_actor(self._actor)
            raise

    def call(self, method: str, *arguments: Any) -> Answer:
        """See :class:`retrieval.search.replicas.transport.ReplicaHandle`."""
        return _RayAnswer(getattr(self._actor, method).remote(*arguments))

    def close(self) -> None:
        """See :class:`retrieval.search.replicas.transport.ReplicaHandle`."""
        kill_actor(self._actor)


@dataclass(frozen=True)
class _RayAnswer:
    reference: Any

    def result(self, timeout: float | None = None) -> Any:
        try:
            return answer_of(self.reference, timeout)
        except ActorLostError as error:
            raise ReplicaLostError(f"a replica on the Ray cluster has ended ({error})") from error
