"""How a router reaches replicas: a small interface, and the way within one process."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from retrieval.errors import ReplicaLostError
from retrieval.search.replicas.replica import Replica, ReplicaSpec

AT_ONCE = 4  # calls that a replica answers at a time: a new generation opens while the old one is asked


class Answer(Protocol):
    """The answer of a call that was begun."""

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the answer, at most ``timeout`` seconds.

        Raises:
            TimeoutError: it is not there yet.
            ReplicaLostError: the replica is gone.
        """
        ...


class ReplicaHandle(Protocol):
    """One replica as a router sees it."""

    def call(self, method: str, *arguments: Any) -> Answer:
        """Begin a call of a method of :class:`retrieval.search.replicas.replica.Replica`."""
        ...

    def close(self) -> None:
        """End the replica, also in mid-work."""
        ...


class ReplicaTransport(Protocol):
    """Opens replicas and hands values to them."""

    def open(self, number: int) -> ReplicaHandle:
        """Start replica ``number`` and wait until it answers; ReplicaLostError if it ended before."""
        ...

    def share(self, value: Any) -> Any:
        """Return what calls may take in place of ``value``, so that it is sent once to all replicas of a machine."""
        ...


class LocalTransport:
    """Replicas in threads of this process."""

    def __init__(self, spec: ReplicaSpec) -> None:
        """Take what every replica needs."""
        self._spec = spec

    def open(self, number: int) -> "LocalReplica":
        """See :class:`ReplicaTransport`."""
        return LocalReplica(Replica(self._spec))

    def share(self, value: Any) -> Any:
        """See :class:`ReplicaTransport`."""
        return value


class LocalReplica:
    """A replica in threads of this process."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._threads = ThreadPoolExecutor(AT_ONCE, "diffsim-replica")
        self._is_gone = threading.Event()

    def call(self, method: str, *arguments: Any) -> Answer:
        """See :class:`ReplicaHandle`."""
        try:
            return self._threads.submit(self._do, getattr(self._replica, method), *arguments)
        except RuntimeError:  # the pool was shut down
            gone: Future[Any] = Future()
            gone.set_exception(self._lost())
            return gone

    def _do(self, work: Callable[..., Any], *arguments: Any) -> Any:
        if self._is_gone.is_set():
            raise self._lost()
        found = work(*arguments)
        if self._is_gone.is_set():
            raise self._lost()
        return found

    def _lost(self) -> ReplicaLostError:
        return ReplicaLostError("a replica in this process was closed")

    def close(self) -> None:
        """See :class:`ReplicaHandle`; calls that run now are answered with a ReplicaLostError."""
        self._is_gone.set()
        self._threads.shutdown(wait=False)
