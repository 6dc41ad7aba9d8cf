"""Progress of long work, and a way to ask it to stop."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from retrieval.errors import CancelledError


@dataclass(frozen=True)
class Progress:
    """Where long work stands, for a bar, a log line or an event of a server."""

    stage: str  # a short name such as "encode"; a new stage begins a new count
    done: int = 0
    total: int = 0  # 0: not known yet
    note: str = ""  # a clause for people where numbers don't say enough


OnProgress = Callable[[Progress], None]
"""Called in the thread that does the work. An exception that it raises ends the work."""


def ignore_progress(progress: Progress) -> None:
    """Do nothing: the default of every function that takes an :data:`OnProgress`."""


class Cancellation:
    """A request to stop. Any thread may make it; long work looks for it between batches."""

    def __init__(self) -> None:
        self._requested = threading.Event()

    def request(self) -> None:
        """Ask the work to stop. Everything complete is kept."""
        self._requested.set()

    @property
    def is_requested(self) -> bool:
        """Whether the work was asked to stop."""
        return self._requested.is_set()

    def check(self) -> None:
        """Raise CancelledError if the work was asked to stop."""
        if self.is_requested:
            raise CancelledError("stopped before the end, as asked; everything complete is kept")
