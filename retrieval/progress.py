"""How long work tells where it stands, and how it is asked to stop."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from retrieval.errors import CancelledError


@dataclass(frozen=True)
class Progress:
    """One step of long work: a bar, a log line or a server's event can be made of it."""

    stage: str  # one word that does not change while ``total`` counts the same things, such as "encode"
    done: int = 0
    total: int = 0  # 0: not known yet
    note: str = ""  # one sentence for people, where there is more to say than numbers


OnProgress = Callable[[Progress], None]
"""Called by long work in the thread that does it; an exception that it raises ends the work."""


def ignore_progress(progress: Progress) -> None:
    """Listen to nothing: the default of every function that takes an :data:`OnProgress`."""


class Cancellation:
    """A request to stop, made from any thread; long work looks at it between batches."""

    def __init__(self) -> None:
        self._requested = threading.Event()

    def request(self) -> None:
        """Ask the work to stop; it keeps everything that is complete."""
        self._requested.set()

    @property
    def is_requested(self) -> bool:
        """Whether somebody asked for it."""
        return self._requested.is_set()

    def check(self) -> None:
        """Raise CancelledError if the work was asked to stop."""
        if self.is_requested:
            raise CancelledError("stopped before the end, as asked; everything complete is kept")
