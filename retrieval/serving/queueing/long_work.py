"""Work of seconds to minutes, such as looking for duplicates: one piece at a time, in a thread of its own.

A request waits a moment for a piece. A later request finds it going on, or its result, which is kept for a while.
"""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from retrieval.progress import Cancellation, OnProgress, Progress
from retrieval.serving.errors import BusyError, StoppingError

ABANDONED_SECONDS = 60.0  # without a request for a piece of work, after which it ends
BUSY_SECONDS = 10  # after which a request may come back

LongCall = Callable[[OnProgress, Cancellation], Any]


@dataclass(eq=False)
class Piece:
    """One piece of work: where it stands, and its result or error once it has ended."""

    progress: Progress | None = None  # None: it waits for another
    result: Any = None
    error: BaseException | None = None
    cancel: Cancellation = field(default_factory=Cancellation)
    ended: "Future[None]" = field(default_factory=Future)
    asked: float = field(default_factory=time.monotonic)

    @property
    def is_done(self) -> bool:
        """Whether there is a result or an error."""
        return self.ended.done()

    async def wait(self, seconds: float) -> bool:
        """Wait for the end of the work, and say whether it has come."""
        await asyncio.wait([asyncio.wrap_future(self.ended)], timeout=seconds)
        return self.is_done

    def value(self) -> Any:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result

    def run(self, work: LongCall) -> None:
        """Do the work; it ends early once nobody has asked for it in a while."""
        try:
            self.look()
            self.cancel.check()
            self.result = work(self.tell, self.cancel)
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set_result(None)

    def tell(self, progress: Progress) -> None:
        """Note where the work stands."""
        self.progress = progress
        self.look()

    def look(self) -> None:
        """Ask the work to stop if nobody waits for it any more."""
        if time.monotonic() - self.asked > ABANDONED_SECONDS:
            self.cancel.request()


class LongWork:
    """Pieces of work by key, safe in many threads. The latest results are kept; an error is told once."""

    def __init__(self, most: int, kept: int) -> None:
        """Take the most pieces that run or wait, and how many results are kept."""
        self._most, self._kept = most, kept
        self._pieces: OrderedDict[Hashable, Piece] = OrderedDict()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = ThreadPoolExecutor(1, "diffsim-long-work")

    def piece(self, key: Hashable, work: LongCall) -> Piece:
        """Return the work of ``key``, begun now if it is not known.

        Raises:
            BusyError: too many other pieces run or wait.
            StoppingError: the server is stopping.
        """
        with self._lock:
            found = self._pieces.get(key)
            if found is not None:
                found.asked = time.monotonic()
                self._pieces.move_to_end(key)
                if found.error is not None:
                    del self._pieces[key]
                return found
            if self._is_closed:
                raise StoppingError("the server is stopping")
            begun = sum(not each.is_done for each in self._pieces.values())
            if begun >= self._most:
                raise BusyError(f"the server looks for groups {begun} times already, its limit groupings", BUSY_SECONDS)
            self._drop_old()
            made = self._pieces[key] = Piece()
            self._thread.submit(made.run, work)
            return made

    def _drop_old(self) -> None:
        done = [key for key, each in self._pieces.items() if each.is_done]
        for key in done[: max(0, len(done) - self._kept + 1)]:
            del self._pieces[key]

    def close(self) -> None:
        """Take no more work, and end what runs."""
        with self._lock:
            self._is_closed = True
            for each in self._pieces.values():
                each.cancel.request()
        self._thread.shutdown()
