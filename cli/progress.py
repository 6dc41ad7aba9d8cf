"""Show progress: a bar with speed and remaining time on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cli.plan import describe_estimate
from cli.running import clock, speaker
from retrieval.events import slowest

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from retrieval.events import BuildEvent

LINE_SECONDS = 15.0


class _Drawn:
    """What is drawn on a terminal's stderr, and nowhere else. Use it as a context manager around the work."""

    def __init__(self, wanted: bool) -> None:
        self._progress = _new_bar() if wanted and sys.stderr.isatty() else None

    @property
    def is_drawn(self) -> bool:
        """Whether there is anything to see."""
        return self._progress is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()


class Bar(_Drawn):
    """One bar."""

    def __init__(self, what: str, wanted: bool = True) -> None:
        """Call the work ``what``; draw nothing unless ``wanted``."""
        super().__init__(wanted)
        self._what = what
        self._task: TaskID | None = None

    def show(self, done: int, total: int, note: str = "") -> None:
        """Show how far the work is; the bar appears with the first step, when what comes before has been said."""
        if self._progress is None:
            return
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task(self._what, total=total)
        self._progress.update(self._task, completed=done, description=self._what + note)


class BuildProgress(Bar):
    """A bar for a build, or lines where there is no terminal; :meth:`tell` is the build's ``on_event``."""

    def __init__(self, quiet: bool, bar: bool, what: str = "indexing") -> None:
        """Say nothing when ``quiet``; draw a bar when ``bar`` and stderr is a terminal."""
        super().__init__(what, wanted=bar and not quiet)
        self._say = speaker(quiet)
        self._began = self._spoke = time.monotonic()

    def tell(self, event: "BuildEvent") -> None:
        """Show one event."""
        if event.kind == "planned":
            self._say(event.message)
        elif event.kind == "model":
            self._say(f"model {event.message}")
        elif event.kind == "estimate" and event.estimate is not None:
            self._say(describe_estimate(event.estimate))
        elif event.kind == "compiling":
            self._say(f"compiling the networks {event.message}, which takes minutes")
        elif event.kind == "loaded":
            self._began = self._spoke = time.monotonic()
        elif event.kind == "batch":
            held_up = slowest(event.speeds)
            self.show(event.done, event.total, f" ({held_up} is slowest)" if held_up else "")
            if not self.is_drawn:
                self._say_now_and_then(event)
        elif event.kind == "training":
            self._say(f"training the coarse index of {event.message} over {event.total} images")

    def _say_now_and_then(self, event: "BuildEvent") -> None:
        now = time.monotonic()
        spent = now - self._began
        left = (event.total - event.done) * spent / event.done
        # The first batch says at once how long a long build will take.
        due = now - self._spoke >= LINE_SECONDS or (self._spoke == self._began and left >= LINE_SECONDS)
        if due and event.done < event.total:
            self._spoke = now
            self._say(
                f"{event.done}/{event.total} images, {pace(event.done, spent)}, about {clock(left)} left"
                + (f"; {describe_speeds(event.speeds)}" if event.speeds else "")
            )


class TaskProgress(_Drawn):
    """Show tasks one after the other; pass :meth:`show` as a library function's ``progress``."""

    def __init__(self, quiet: bool, bar: bool) -> None:
        """Say nothing when ``quiet``; draw a bar when ``bar`` and stderr is a terminal."""
        super().__init__(wanted=bar and not quiet)
        self._say = speaker(quiet)
        self._tasks: dict[str, TaskID] = {}
        self._spoke = time.monotonic()

    def show(self, task: str, done: int, total: int) -> None:
        """Show how much of ``task`` is done."""
        if self._progress is not None:
            if task not in self._tasks:
                self._progress.start()
                self._tasks[task] = self._progress.add_task(task, total=total)
            self._progress.update(self._tasks[task], completed=done, total=total)
            return
        now = time.monotonic()
        if now - self._spoke >= LINE_SECONDS and done < total:
            self._spoke = now
            self._say(f"{task}: {done}/{total}")


def _new_bar() -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        """Images a second."""

        def render(self, task: Task) -> Text:
            return Text(pace(task.speed, 1.0) if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def describe_speeds(speeds: Mapping[str, float]) -> str:
    """Say which stage of a build holds the others up, and how fast each of them is."""
    each = ", ".join(f"{stage} {pace(images, 1.0)}" for stage, images in speeds.items())
    return f"{slowest(speeds)} is the slowest stage ({each})"


def pace(images: float, seconds: float) -> str:
    """Return a speed as people say it: images a second, or seconds an image where that is slow."""
    if images >= seconds:
        return f"{images / max(seconds, 1e-9):.1f} images/s"
    return f"{seconds / images:.1f} s an image"
