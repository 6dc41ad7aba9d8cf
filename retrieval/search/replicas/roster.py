"""Who is alive and holds what: the state of a fleet of replicas, behind one lock."""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from retrieval.errors import IndexStoreError, ReplicaLostError
from retrieval.search.replicas.partition_index import PartAbout
from retrieval.search.replicas.plan import ReplicaPlan
from retrieval.search.replicas.transport import ReplicaHandle

KEPT_VIEWS = 2  # generations: the one that is served, and the one that takes its place

Abouts = dict[int, dict[str, PartAbout]]
"""What a router must know of each partition's vectors, by encoder."""


@dataclass
class View:
    """One generation as the replicas hold it."""

    plan: ReplicaPlan
    held: list[set[int]]  # partitions, by replica
    abouts: Abouts = field(default_factory=dict)


class Roster:
    """The living replicas, and the partitions of each generation that they hold; safe in many threads."""

    def __init__(self, replicas: int) -> None:
        """Begin without any living replica, and without a generation."""
        self._handles: list[ReplicaHandle | None] = [None] * replicas
        self._views: OrderedDict[int, View] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._handles)

    def handle(self, slot: int) -> ReplicaHandle | None:
        """Return a replica; None while it is lost."""
        return self._handles[slot]

    def living(self) -> list[tuple[int, ReplicaHandle]]:
        """Return the replicas that are not known to be lost, with their numbers."""
        with self._changed:
            return [(slot, handle) for slot, handle in enumerate(self._handles) if handle is not None]

    def view(self, number: int) -> View | None:
        """Return a generation that is open, or being opened."""
        with self._changed:
            return self._views.get(number)

    def newest(self) -> View | None:
        """Return the generation that was opened last."""
        with self._changed:
            return next(reversed(self._views.values()), None)

    def begin(self, number: int, plan: ReplicaPlan) -> tuple[View, bool]:
        """Return the view of a generation, and whether it is new."""
        with self._changed:
            is_new = number not in self._views
            return self._views.setdefault(number, View(plan, [set() for _ in self._handles])), is_new

    def forget(self, number: int) -> None:
        """Drop a generation that could not be opened."""
        with self._changed:
            self._views.pop(number, None)

    def trim(self) -> list[int]:
        """Drop the oldest generations, and return the others."""
        with self._changed:
            while len(self._views) > KEPT_VIEWS:
                self._views.popitem(last=False)
            return list(self._views)

    def add(self, slot: int, handle: ReplicaHandle, opened: dict[int, Abouts]) -> list[tuple[int, ReplicaPlan]]:
        """Let a replica be asked for what it has ``opened``; return the generations that it must open before that."""
        with self._changed:
            missing = [(number, view.plan) for number, view in self._views.items() if number not in opened]
            if not missing:
                self._handles[slot] = handle
                for number, abouts in opened.items():
                    self._hold(number, slot, abouts)
                self._changed.notify_all()
            return missing

    def note(self, number: int, slot: int, handle: ReplicaHandle, abouts: Abouts) -> None:
        """Remember that a replica holds further partitions, unless it was lost meanwhile."""
        with self._changed:
            if self._handles[slot] is handle:
                self._hold(number, slot, abouts)
                self._changed.notify_all()

    def _hold(self, number: int, slot: int, abouts: Abouts) -> None:
        view = self._views.get(number)
        if view is not None:
            view.held[slot] |= abouts.keys()
            view.abouts |= abouts

    def lose(self, slot: int, handle: ReplicaHandle) -> bool:
        """Forget a lost replica; return False if somebody else has."""
        with self._changed:
            if self._handles[slot] is not handle:
                return False
            self._handles[slot] = None
            for view in self._views.values():
                view.held[slot] = set()
            return True

    def orphans(self) -> Sequence[tuple[int, View, int]]:
        """Return the partitions that nobody holds, with their generations."""
        with self._changed:
            return [
                (number, view, partition)
                for number, view in self._views.items()
                for partition, names in enumerate(view.plan.partitions)
                if names and not any(partition in held for held in view.held)
            ]

    def holder(self, number: int, partition: int, deadline: float) -> tuple[int, ReplicaHandle]:
        """Return the replica to ask for a partition; wait for one until ``deadline``, of :func:`time.monotonic`.

        Raises:
            ReplicaLostError: nobody holds the partition.
            IndexStoreError: the generation is not open any more.
        """
        with self._changed:
            while True:
                view = self._views.get(number)
                if view is None:
                    raise IndexStoreError(f"generation {number} is not open on the replicas any more")
                first = view.plan.holders(partition)
                for slot in (*first, *(each for each in range(len(self._handles)) if each not in first)):
                    handle = self._handles[slot]
                    if handle is not None and partition in view.held[slot]:
                        return slot, handle
                left = deadline - time.monotonic()
                if left <= 0 or self._closed:
                    alive = sum(handle is not None for handle in self._handles)
                    raise ReplicaLostError(
                        f"no replica holds partition {partition + 1} of {len(view.plan.partitions)} at the moment: "
                        f"{alive} of {len(self)} replicas answer, and the others are being replaced"
                    )
                self._changed.wait(left)

    def close(self) -> list[ReplicaHandle]:
        """Forget all replicas, and return those that lived."""
        with self._changed:
            self._closed = True
            living = [handle for handle in self._handles if handle is not None]
            self._handles = [None] * len(self._handles)
            self._changed.notify_all()
            return living
