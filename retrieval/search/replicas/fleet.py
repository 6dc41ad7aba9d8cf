"""The replicas of one index: opens generations on them, asks them, and replaces those that are lost.

A lost replica is opened again, elsewhere if its machine is gone. Until then the others that hold its partitions answer;
a partition that nobody holds any more is opened by the living replica that holds least.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from retrieval.errors import IndexStoreError, ReplicaLostError
from retrieval.progress import Cancellation
from retrieval.search.replicas.plan import ReplicaPlan
from retrieval.search.replicas.roster import Abouts, Roster, View
from retrieval.search.replicas.transport import Answer, ReplicaHandle, ReplicaTransport
from retrieval.settings import ReplicaSettings

logger = logging.getLogger(__name__)

DEFAULT = ReplicaSettings()
RETRY_SECONDS = 1.0  # after a replica could not be opened; twice as long each further time
LONGEST_RETRY_SECONDS = 30.0
POLL_SECONDS = 0.1  # between looks whether a search is still wanted


@dataclass(frozen=True)
class Call:
    """A method of a replica, and what it takes after the generation and the partition."""

    method: str
    arguments: Sequence[Any] = ()
    is_quick: bool = False  # it compares vectors: a replica that takes long hangs


class Fleet:
    """Replicas that are asked together; safe in many threads."""

    def __init__(
        self,
        transport: ReplicaTransport,
        replicas: int,
        patience: float = DEFAULT.patience_seconds,
        most_seconds: float = DEFAULT.answer_seconds,
    ) -> None:
        """Open all replicas at once.

        Args:
            transport: opens them.
            replicas: how many.
            patience: seconds that a question waits for a partition that nobody holds at the moment.
            most_seconds: after which a replica counts as lost that has not compared vectors.

        Raises:
            ReplicaLostError, DiffSimError: one of them could not be opened; none is left open.
        """
        self._transport, self._patience, self._most_seconds = transport, patience, most_seconds
        self._roster = Roster(replicas)
        self._opening = threading.Lock()  # one new generation at a time
        self._closed = threading.Event()
        try:
            with ThreadPoolExecutor(replicas, "diffsim-open") as pool:
                for slot, handle in enumerate(pool.map(transport.open, range(replicas))):
                    self._roster.add(slot, handle, {})
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._roster)

    @property
    def alive(self) -> int:
        """How many replicas answer now."""
        return len(self._roster.living())

    def replica(self, slot: int) -> ReplicaHandle | None:
        """Return a replica; None while it is lost."""
        return self._roster.handle(slot)

    def share(self, value: Any) -> Any:
        """See :class:`ReplicaTransport`."""
        return self._transport.share(value)

    def plan_of(self, number: int) -> ReplicaPlan | None:
        """Return the plan of an opened generation."""
        view = self._roster.view(number)
        return None if view is None else view.plan

    def newest_plan(self) -> ReplicaPlan | None:
        """Return the plan of the generation that was opened last; None: there is none yet."""
        view = self._roster.newest()
        return None if view is None else view.plan

    def open(self, number: int, plan: ReplicaPlan) -> Abouts:
        """Open a generation on every living replica, and wait until each partition is held.

        Older generations but the newest one are dropped.

        Raises:
            ReplicaLostError: nobody could open some partition.
            DiffSimError: the first error of a replica; the generation is not opened.
        """
        with self._opening:
            view, is_new = self._roster.begin(number, plan)
            try:
                self._open_everywhere(number, view)
            except BaseException:
                if is_new:
                    self._roster.forget(number)
                raise
            kept = self._roster.trim()
            for _, handle in self._roster.living():
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
                    slot, handle = self._roster.holder(number, partition, deadline)
                    answer = handle.call(call.method, number, partition, *call.arguments)
                    begun.append((partition, slot, handle, answer))
            for partition, slot, handle, answer in begun:
                try:
                    found[partition] = self._answer(answer, calls[partition], cancel)
                except ReplicaLostError as error:
                    self._lost(slot, handle, error)
        return found

    def close(self) -> None:
        """End every replica."""
        self._closed.set()
        for handle in self._roster.close():
            handle.close()

    def _answer(self, answer: Answer, call: Call, cancel: Cancellation | None) -> Any:
        """Wait for the answer of a call; one that computes tensors may take as long as somebody waits."""
        if not call.is_quick:
            return _wait_for(answer, cancel)
        try:
            return answer.result(self._most_seconds)
        except TimeoutError as error:
            raise ReplicaLostError(f"a replica has not answered within {self._most_seconds:g} seconds") from error

    def _open_everywhere(self, number: int, view: View) -> None:
        begun = [
            (slot, handle, handle.call("open", number, view.plan.of_replica(slot)))
            for slot, handle in self._roster.living()
        ]
        for slot, handle, answer in begun:
            try:
                self._roster.note(number, slot, handle, answer.result())
            except ReplicaLostError as error:
                self._lost(slot, handle, error)
        self._take_over()
        deadline = time.monotonic() + self._patience
        for partition, names in enumerate(view.plan.partitions):
            if names:
                self._roster.holder(number, partition, deadline)

    def _lost(self, slot: int, handle: ReplicaHandle, error: ReplicaLostError) -> None:
        """Forget a lost replica and begin to replace it; the first who notices does."""
        if not self._roster.lose(slot, handle):
            return
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
        while missing := self._roster.add(slot, handle, opened):
            for number, plan in missing:
                opened[number] = self._opened(handle, slot, number, plan)
        if self._closed.is_set():
            handle.close()
        logger.info("replica %d of %d answers again", slot + 1, len(self))

    def _opened(self, handle: ReplicaHandle, slot: int, number: int, plan: ReplicaPlan) -> Abouts:
        """Open a generation on a new replica; an older one that its machine can't see any more is passed over."""
        try:
            found: Abouts = handle.call("open", number, plan.of_replica(slot)).result()
        except IndexStoreError as error:
            newest = self._roster.newest()
            if newest is None or newest.plan is plan:
                raise
            logger.info("replica %d does without generation %d: %s", slot + 1, number, error)
            return {}
        return found

    def _take_over(self) -> None:
        """Open partitions that nobody holds on the living replicas that hold least."""
        for number, view, partition in self._roster.orphans():
            load = [len(held) for held in view.held]
            for slot, handle in sorted(self._roster.living(), key=lambda each: load[each[0]]):
                try:
                    answer = handle.call("open", number, {partition: view.plan.partitions[partition]})
                    self._roster.note(number, slot, handle, answer.result())
                    logger.info("replica %d takes over partition %d", slot + 1, partition + 1)
                    break
                except ReplicaLostError as error:
                    self._lost(slot, handle, error)
                except Exception as error:
                    logger.warning("replica %d can't take over partition %d: %s", slot + 1, partition + 1, error)


def _wait_for(answer: Answer, cancel: Cancellation | None) -> Any:
    """Return the answer of a call; a CancelledError once nobody waits for it."""
    while cancel is not None:
        try:
            return answer.result(POLL_SECONDS)
        except TimeoutError:
            cancel.check()
    return answer.result()
