"""Draw progress bars on a terminal: one line a stage, fitted to the terminal's width."""

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from cli.terminal.process import clock
from retrieval.text import escaped, human_bytes

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LEAST_BAR, MOST_BAR = 8, 40  # columns
LEAST_NAME = 4


class Counted(NamedTuple):
    """The thing that is counted, as words: ``images`` per second, or seconds per ``image``."""

    several: str
    one: str


IMAGES, QUERIES, STEPS = Counted("images", "image"), Counted("queries", "query"), Counted("steps", "step")
BYTES = Counted("bytes", "byte")


class Stand(NamedTuple):
    """Where a stage stands."""

    name: str
    counted: Counted
    done: int
    total: int  # 0: not known yet
    began: float  # by time.monotonic()
    first: int = 0  # what was done before it began

    @property
    def counts(self) -> str:
        """The count, such as ``3/8``, ``1.5 MB of 2.0 MB``, or ``3`` of a total that nobody knows."""
        if self.counted is BYTES:
            return f"{human_bytes(self.done)} of {human_bytes(self.total)}"
        return f"{self.done}/{self.total}" if self.total else f"{self.done}"

    def speed(self, now: float) -> str:
        """Return the mean speed since the stage began; empty before the first step."""
        new = self.done - self.first
        return pace(new, now - self.began, self.counted) if new > 0 else ""

    def left(self, now: float) -> str:
        """Return the time left as ``0:48``; empty while nobody can know it."""
        new = self.done - self.first
        if new <= 0 or not self.total:
            return ""
        return clock(max(0, self.total - self.done) * (now - self.began) / new)


def pace(count: float, seconds: float, counted: Counted = IMAGES) -> str:
    """Return a speed as people say it: images per second, or seconds per image where that is slow."""
    if counted is BYTES:
        return f"{human_bytes(count / max(seconds, 1e-9))}/s"
    if count >= seconds:
        return f"{count / max(seconds, 1e-9):.1f} {counted.several}/s"
    return f"{seconds / count:.1f} s per {counted.one}"


def bar_line(stand: Stand, now: float, width: int, marks: str = "━─") -> str:
    """Return a stage as one line of at most ``width`` columns.

    A narrow terminal loses the speed first, then the bar, the time left and the end of the name; never the count.

    Args:
        stand: where the stage stands.
        now: by time.monotonic().
        width: columns of the terminal.
        marks: the characters of what is done and of what is left.
    """
    name, speed, left = escaped(stand.name), stand.speed(now), stand.left(now)
    endings = ["  ".join(filter(None, parts)) for parts in ((stand.counts, speed, left), (stand.counts, left))]
    for ending in endings if stand.total else ():
        room = min(MOST_BAR, width - len(name) - len(ending) - 4)
        if room >= LEAST_BAR:
            filled = min(room, room * stand.done // stand.total)
            return f"{name}  {filled * marks[0]}{(room - filled) * marks[1]}  {ending}"
    for ending in (*endings, stand.counts):
        if len(name) + len(ending) + 2 <= width:
            return f"{name}  {ending}"
    shortened = max(0, width - len(stand.counts) - 3)
    return f"{name[:shortened]}…  {stand.counts}" if shortened >= LEAST_NAME else stand.counts[:width]


class DrawnBars:
    """The bars on a terminal; lines that are printed meanwhile go above them."""

    def __init__(self) -> None:
        self._rich = _new_bars()
        self._tasks: dict[str, TaskID] = {}
        self._is_ended = False
        self._lock = threading.Lock()

    def show(self, key: str, stand: Stand) -> None:
        """Draw a stage, told apart by ``key``; nothing is drawn after :meth:`end`."""
        with self._lock:
            if self._is_ended:
                return
            if key not in self._tasks:
                self._rich.start()  # at the first stage: lines printed before stay above the bars
                self._tasks[key] = self._rich.add_task("", total=stand.total or None, stand=stand)
            self._rich.update(self._tasks[key], completed=stand.done, total=stand.total or None, stand=stand)

    def end(self) -> None:
        """Leave the bars as they are, once: threads may still report work, and Ctrl-C may come again."""
        with self._lock:
            if not self._is_ended:
                self._is_ended = True
                self._rich.stop()


def can_draw() -> bool:
    """Return whether stderr is a terminal that moves its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def _new_bars() -> "RichProgress":
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, Task
    from rich.text import Text

    console = Console(stderr=True)
    marks = "#-" if console.options.ascii_only else "━─"

    class Line(ProgressColumn):
        """The whole line of a stage."""

        def render(self, task: Task) -> Text:
            line = bar_line(task.fields["stand"], time.monotonic(), console.width, marks)
            return Text(line, no_wrap=True, overflow="crop")

    return Progress(Line(), console=console)
