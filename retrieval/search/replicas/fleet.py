"""The replicas of one index: opens generations on them, asks them, and replaces those that are lost.

A lost replica is opened again, elsewhere if its machine is gone. Until then the others that hold its partitions answer;
a partition that nobody holds any more is opened by the living replica that holds least.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from retrieval.errors import IndexStoreError, ReplicaLostError
from retrieval.progress import Cancellation
from retrieval.search.replicas.partition_index import PartAbout
from retrieval.search.replicas.plan import Plan
from retrieval.search.replicas.transport import Answer, ReplicaHandle, Transport
from retrieval.settings import ReplicaSettings

logger = logging.getLogger(__name__)

DEFAULT = ReplicaSettings()
KEPT_VIEWS = 2  # generations: the one that is served, and the one that takes its place
RETRY_SECONDS = 1.0  # after a replica could not be opened; twice as long each further time
LONGEST_RETRY_SECONDS = 30.0
POLL_SECONDS = 0.1  # between looks whether a search is still wanted

Abouts = dict[int, dict[str, PartAbout]]
"""What a router must know of each partition's vectors, by encoder."""


@dataclass(frozen=True)
class Call:
    """A method of a replica, and what it takes after the generation and the partition."""

    method: str
    arguments: Sequence[Any] = ()


@dataclass
class _View:
    """One generation as the replicas hold it."""

    plan: Plan
    held: list[set[int]]  # partitions, by replica
    abouts: Abouts = field(default_factory=dict)


class Fleet:
    """Replicas that are asked together; safe in many threads."""

    def __init__(self, transport: Transport, replicas: int, patience: float = DEFAULT.patience_seconds) -> None:
        """Open all replicas at once.

        Args:
            transport: opens them.
            replicas: how many.
            patience: seconds that a question waits for a partition that nobody holds at the moment.

        Raises:
            ReplicaLostError, DiffSimError: one of them could not be opened; none is left open.
        """
        self._transport, self._patience = transport, patience
        self._handles: list[ReplicaHandle | None] = [None] * replicas
        self._views: OrderedDict[int, _View] = OrderedDict()
        self._changed = threading.Condition()
        self._opening = threading.Lock()  # one new generation at a time
        self._closed = threading.Event()
        try:
            with ThreadPoolExecutor(replicas, "diffsim-open") as pool:
                for number, handle in enumerate(pool.map(transport.open, range(replicas))):
                    self._handles[number] = handle
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._handles)

    @property
    def alive(self) -> int:
        """How many replicas answer now."""
        return sum(handle is not None for handle in self._handles)

    def share(self, value: Any) -> Any:
        """See :class:`Transport`."""
        return self._transport.share(value)

    def plan_of(self, number: int) -> Plan | None:
        """Return the plan of an opened generation."""
        with self._changed:
            view = self._views.get(number)
            return None if view is None else view.plan

    def newest_plan(self) -> Plan | None:
        """Return the plan of the generation that was opened last; None: there is none yet."""
        with self._changed:
            return next((view.plan for view in reversed(self._views.values())), None)

    def open(self, number: int, plan: Plan) -> Abouts:
        """Open a generation on every living replica, and wait until each partition is held.

        Older generations but the newest one are dropped.

        Raises:
            ReplicaLostError: nobody could open some partition.
            DiffSimError: the first error of a replica; the generation is not opened.
        """
        with self._opening:
            with self._changed:
                is_new = number not in self._views
                view = self._views.setdefault(number, _View(plan, [set() for _ in self._handles]))
            try:
                self._open_everywhere(number, view)
                self._wait_until_held(number, view)
            except BaseException:
                with self._changed:
                    if is_new:
                        self._views.pop(number, None)
                raise
            with self._changed:
                while len(self._views) > KEPT_VIEWS:
                    self._views.popitem(last=False)
                kept = list(self._views)
            for _, handle in self._living():
                handle.call("keep", kept)
            return view.abouts

    def ask(self, number: int, calls: Mapping[int, Call], cancel: Cancellation | None = None) -> dict[int, Any]:
        """Make a call for each partition, and return the answers by partition.

        Calls that lose their replica are made again on another one that holds the partition.

        Raises:
            ReplicaLostError: nobody holds a partition, and nobody did within the patience.
            IndexStoreError: the generation is not open any more.
            CancelledError: nobody waits for the answers any more.
        """
        found: dict[int, Any] = {}
        deadline = time.monotonic() + self._patience
        while len(found) < len(calls):
            begun: list[tuple[int, int, ReplicaHandle, Answer]] = []
            for partition, call in calls.items():
                if partition not in found:
                    slot, handle = self._holder(number, partition, deadline)
                    begun.append(
                        (partition, slot, handle, handle.call(call.method, number, partition, *call.arguments))
                    )
            for partition, slot, handle, answer in begun:
                try:
                    found[partition] = _wait_for(answer, cancel)
                except ReplicaLostError as error:
                    self._lost(slot, handle, error)
        return found

    def close(self) -> None:
        """End every replica."""
        self._closed.set()
        with self._changed:
            handles, self._handles = self._handles, [None] * len(self._handles)
            self._changed.notify_all()
        for handle in handles:
            if handle is not None:
                handle.close()

    def _living(self) -> list[tuple[int, ReplicaHandle]]:
        with self._changed:
            return [(slot, handle) for slot, handle in enumerate(self._handles) if handle is not None]

    def _holder(self, number: int, partition: int, deadline: float) -> tuple[int, ReplicaHandle]:
        """Return the replica to ask for a partition, and wait for one where nobody holds it."""
        with self._changed:
            while True:
                view = self._views.get(number)
                if view is None:
                    raise IndexStoreError(f"generation {number} is not open on the replicas any more")
                others = (slot for slot in range(len(self._handles)) if slot not in view.plan.holders(partition))
                for slot in (*view.plan.holders(partition), *others):
                    handle = self._handles[slot]
                    if handle is not None and partition in view.held[slot]:
                        return slot, handle
                left = deadline - time.monotonic()
                if left <= 0 or self._closed.is_set():
                    raise ReplicaLostError(
                        f"no replica holds partition {partition + 1} of {len(view.plan.partitions)} at the moment: "
                        f"{self.alive} of {len(self)} replicas answer, and the others are being replaced"
                    )
                self._changed.wait(min(left, POLL_SECONDS))

    def _open_everywhere(self, number: int, view: _View) -> None:
        begun = [
            (slot, handle, handle.call("open", number, view.plan.of_replica(slot))) for slot, handle in self._living()
        ]
        for slot, handle, answer in begun:
            try:
                self._note(view, slot, handle, answer.result())
            except ReplicaLostError as error:
                self._lost(slot, handle, error)

    def _wait_until_held(self, number: int, view: _View) -> None:
        self._take_over()
        deadline = time.monotonic() + self._patience
        for partition, names in enumerate(view.plan.partitions):
            if names:
                self._holder(number, partition, deadline)

    def _note(self, view: _View, slot: int, handle: ReplicaHandle, abouts: Abouts) -> None:
        """Remember that a replica holds partitions, unless it was lost meanwhile."""
        with self._changed:
            if self._handles[slot] is handle:
                view.held[slot] |= abouts.keys()
                view.abouts |= abouts
                self._changed.notify_all()

    def _lost(self, slot: int, handle: ReplicaHandle, error: ReplicaLostError) -> None:
        """Forget a lost replica and begin to replace it; the first who notices does."""
        with self._changed:
            if self._handles[slot] is not handle:
                return
            self._handles[slot] = None
            for view in self._views.values():
                view.held[slot] = set()
        logger.warning("replica %d of %d is lost and will be replaced: %s", slot + 1, len(self), error)
        with suppress(Exception):
            handle.close()
        if not self._closed.is_set():
            threading.Thread(target=self._recover, args=(slot,), name="diffsim-recovery", daemon=True).start()

    def _recover(self, slot: int) -> None:
        """Let others open what nobody holds, then open the replica again, until that succeeds or the fleet closes."""
        self._take_over()
        pause = RETRY_SECONDS
        while not self._closed.is_set():
            handle: ReplicaHandle | None = None
            try:
                handle = self._transport.open(slot)
                self._fill(slot, handle)
                return
            except Exception as error:
                logger.warning("replica %d could not be replaced and is tried again: %s", slot + 1, error)
                if handle is not None:
                    handle.close()
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)

    def _fill(self, slot: int, handle: ReplicaHandle) -> None:
        """Open every generation on a new replica, and let it be asked."""
        opened: dict[int, Abouts] = {}
        while True:
            with self._changed:
                missing = [(number, view.plan) for number, view in self._views.items() if number not in opened]
                if not missing:
                    self._handles[slot] = handle
                    for number, abouts in opened.items():
                        if number in self._views:
                            self._views[number].held[slot] = set(abouts)
                            self._views[number].abouts |= abouts
                    self._changed.notify_all()
                    break
            for number, plan in missing:
                opened[number] = handle.call("open", number, plan.of_replica(slot)).result()
        if self._closed.is_set():
            handle.close()
        logger.info("replica %d of %d answers again", slot + 1, len(self))

    def _take_over(self) -> None:
        """Open partitions that nobody holds on the living replicas that hold least."""
        for number, view, partition in self._orphans():
            load = {slot: len(view.held[slot]) for slot, _ in self._living()}
            for slot, handle in sorted(self._living(), key=lambda each: load.get(each[0], 0)):
                try:
                    answer = handle.call("open", number, {partition: view.plan.partitions[partition]})
                    self._note(view, slot, handle, answer.result())
                    logger.info("replica %d takes over partition %d", slot + 1, partition + 1)
                    break
                except ReplicaLostError as error:
                    self._lost(slot, handle, error)
                except Exception as error:
                    logger.warning("replica %d can't take over partition %d: %s", slot + 1, partition + 1, error)

    def _orphans(self) -> Iterable[tuple[int, _View, int]]:
        with self._changed:
            return [
                (number, view, partition)
                for number, view in self._views.items()
                for partition, names in enumerate(view.plan.partitions)
                if names and not any(partition in held for held in view.held)
            ]


def _wait_for(answer: Answer, cancel: Cancellation | None) -> Any:
    """Return the answer of a call; a CancelledError once nobody waits for it."""
    while cancel is not None:
        try:
            return answer.result(POLL_SECONDS)
        except TimeoutError:
            cancel.check()
    return answer.result()
