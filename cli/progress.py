"""Show progress: a bar with speed and remaining time on a terminal, a line now and then elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from cli.output import describe_estimate
from cli.process import clock, speaker
from retrieval.indexing.reports import slowest

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from retrieval.indexing.reports import BuildEvent
    from retrieval.progress import Progress as LibraryProgress

LINE_SECONDS = 15.0  # the longest that is said nothing


class Counted(NamedTuple):
    """What is counted, in words: ``images`` a second, or seconds ``an image``."""

    several: str
    one: str


IMAGES, QUERIES, STEPS = Counted("images", "an image"), Counted("queries", "a query"), Counted("steps", "a step")


class Pulse:
    """Says :attr:`state` every :data:`LINE_SECONDS`: long work that nobody sees a bar of shows that it lives.

    A thread of its own, since what one step takes is not known.
    """

    def __init__(self, state: str, say: Callable[[str], None]) -> None:
        self.state = state
        self._say = say
        self._ended = threading.Event()
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        threading.Thread(target=self._run, name="pulse", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(LINE_SECONDS):
            self._say(f"{self.state} ({clock(time.monotonic() - self._began)})")


class _Shown:
    """A bar on a terminal's stderr, or a line now and then elsewhere. Use it as a context manager around the work."""

    def __init__(self, quiet: bool, bar: bool, state: str) -> None:
        """Say nothing when ``quiet``; draw a bar when ``bar`` and stderr is a terminal, else begin with ``state``."""
        self._say = speaker(quiet)
        self._progress = _new_bar() if bar and not quiet and sys.stderr.isatty() else None
        self._pulse = Pulse(state, speaker(quiet or self._progress is not None))
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._pulse.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._pulse.__exit__(*error)
        if self._progress is not None:
            self._progress.stop()

    def _draw(self, task: "TaskID | None", what: str, done: int, total: int, began: float, speed: str) -> "TaskID":
        """Draw how far ``task`` is, in a new line where it is None."""
        assert self._progress is not None
        if task is None:
            self._progress.start()  # not before: what is said until then stays above the bar
            task = self._progress.add_task(what, total=total, began=began, speed=speed)
        self._progress.update(task, completed=done, total=total, description=what, began=began, speed=speed)
        return task


class BuildProgress(_Shown):
    """A bar for a build, or lines where there is no terminal; :meth:`tell` is the build's ``on_event``."""

    def __init__(self, quiet: bool, bar: bool, what: str = "indexing") -> None:
        """Say nothing when ``quiet``; draw a bar when ``bar`` and stderr is a terminal."""
        super().__init__(quiet, bar, "preparing")
        self._what = what
        self._task: TaskID | None = None
        self._committed: tuple[int, int] | None = None
        self._is_begun = False

    def kept(self, index: str | Path) -> str:
        """Say how much of the work is in ``index`` already; nothing before it was known how much there is."""
        if self._committed is None:
            return ""
        done, total = self._committed
        return f"{done} of {total} images are done and in {index}; the same command goes on" if total else ""

    def tell(self, event: "BuildEvent") -> None:
        """Show one event."""
        if event.kind in ("planned", "committed"):
            self._committed = (event.done, event.total)
        if event.kind == "planned":
            self._say(event.message)
        elif event.kind == "model":
            self._say(f"model {event.message}")
        elif event.kind == "estimate" and event.estimate is not None:
            self._say(describe_estimate(event.estimate))
        elif event.kind == "loaded":
            self._began = time.monotonic()
            self._pulse.state = f"{self._what}: no batch is done yet"
        elif event.kind == "batch":
            self._tell_batch(event)
        elif event.kind == "training":
            self._pulse.state = f"training the coarse index of {event.message} over {event.total} images"
            self._say(self._pulse.state)

    def _tell_batch(self, event: "BuildEvent") -> None:
        spent = time.monotonic() - self._began
        speed, left = pace(event.done, spent), max(0, event.total - event.done) * spent / event.done
        if self._progress is not None:
            held_up = slowest(event.speeds) if len(event.speeds) > 1 else None
            what = self._what + (f" ({held_up} is slowest)" if held_up else "")
            self._task = self._draw(self._task, what, event.done, event.total, self._began, speed)
            return
        self._pulse.state = f"{event.done}/{event.total} images, {speed}, about {clock(left)} left" + (
            f"; {describe_speeds(event.speeds)}" if len(event.speeds) > 1 else ""
        )
        if not self._is_begun and left >= LINE_SECONDS:  # the first batch says at once how long a long build will take
            self._say(self._pulse.state)
        self._is_begun = True


class TaskProgress(_Shown):
    """Show tasks one after the other; pass :meth:`show` as a library function's ``progress``."""

    def __init__(self, quiet: bool, bar: bool = True, counted: Counted = STEPS, state: str = "at work") -> None:
        """Say nothing when ``quiet``; draw a bar when ``bar`` and stderr is a terminal, else begin with ``state``."""
        super().__init__(quiet, bar, state)
        self._counted = counted
        self._tasks: dict[str, TaskID] = {}
        self._last: dict[str, tuple[float, int]] = {}  # of each task: since when it is at work, and what was done

    def show(self, task: str, done: int, total: int, counted: Counted | None = None) -> None:
        """Show how much of ``task`` is done, counted as the others are unless it says otherwise."""
        began, before = self._last.get(task, (self._began, 0))
        if done < before:  # it is done once more
            began = self._began
        now = self._began = time.monotonic()  # where the next task begins
        self._last[task] = began, done
        speed = pace(done, now - began, counted or self._counted) if done else ""
        if self._progress is not None:
            self._tasks[task] = self._draw(self._tasks.get(task), task, done, total, began, speed)
            return
        left = f", about {clock((total - done) * (now - began) / done)} left" if 0 < done < total else ""
        self._pulse.state = f"{task}: {done}/{total}" + (f", {speed}{left}" if done else "")

    def tell(self, progress: "LibraryProgress") -> None:
        """Show the progress of a library function, as its ``on_progress``."""
        self.show(progress.note or progress.stage, progress.done, progress.total)

    def overall(self, task: str, parts: int) -> "Callable[[LibraryProgress], None]":
        """Return an ``on_progress`` that shows ``parts`` tasks of the same size, one after the other, as one task."""
        done_of: dict[str, int] = {}

        def show(progress: "LibraryProgress") -> None:
            done_of[progress.note] = progress.done
            self.show(task, sum(done_of.values()), parts * progress.total)

        return show


def _new_bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Left(ProgressColumn):
        """The time that is left, by the speed since the work began: library functions tell of many steps at once."""

        def render(self, task: Task) -> Text:
            if not task.completed or not task.total:
                return Text("-:--")
            spent = time.monotonic() - task.fields["began"]
            return Text(clock((task.total - task.completed) * spent / task.completed))

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), Left())
    return Progress(*columns, console=Console(stderr=True))


def describe_speeds(speeds: Mapping[str, float]) -> str:
    """Say which stage of a build holds the others up, and how fast each of them is."""
    each = ", ".join(f"{stage} {pace(images, 1.0)}" for stage, images in speeds.items())
    return f"{slowest(speeds)} is the slowest stage ({each})"


def pace(count: float, seconds: float, counted: Counted = IMAGES) -> str:
    """Return a speed as people say it: images a second, or seconds an image where that is slow."""
    if count >= seconds:
        return f"{count / max(seconds, 1e-9):.1f} {counted.several}/s"
    return f"{seconds / count:.1f} s {counted.one}"
