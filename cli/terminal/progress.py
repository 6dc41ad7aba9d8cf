"""Show the progress of long work: a bar on a terminal, elsewhere a line every 15 seconds."""

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cli.output import describe_estimate
from cli.terminal.bars import BYTES, IMAGES, QUERIES, STEPS, Counted, DrawnBars, Stand, can_draw, pace
from cli.terminal.process import Speaker, clock
from retrieval.progress import OnProgress, Progress

if TYPE_CHECKING:
    from retrieval.indexing.reports import BuildEvent

LINE_SECONDS = 15.0  # the longest silence without a terminal


STAGES = {
    "comparing": ("comparing", STEPS),
    "compute": ("computing candidates", IMAGES),
    "copies": ("comparing copies", Counted("groups", "group")),
    "copy": ("copying", IMAGES),
    "download": ("downloading", BYTES),
    "edges": ("scoring neighbours", Counted("pairs", "pair")),
    "filling": ("filling", IMAGES),
    "gallery": ("images of the gallery", IMAGES),
    "hash": ("comparing files with the index", Counted("files", "file")),
    "images": ("images", IMAGES),
    "indexing": ("indexing", IMAGES),
    "medoids": ("describing clusters", Counted("clusters", "cluster")),
    "neighbours": ("finding near images", IMAGES),
    "pairs": ("pairs", Counted("pairs", "pair")),
    "pictures": ("reading pictures", IMAGES),
    "queries": ("queries", QUERIES),
    "query": ("query images", IMAGES),
    "search": ("searching", QUERIES),
    "similar": ("scoring similar images", IMAGES),
    "triplets": ("triplets", Counted("triplets", "triplet")),
    "verify": ("reading segments", Counted("segments", "segment")),
}
"""By the stage of a progress: words for people, where no note says more, and the thing that is counted."""


class ProgressBar:
    """One bar per stage on a terminal, or a line every :data:`LINE_SECONDS`. A context manager around the work.

    :meth:`show` is the ``on_progress`` of library functions. The time left follows from the mean speed of the stage,
    because library functions report many steps at once and a recent speed would jump.
    """

    def __init__(self, speaker: Speaker, state: str = "working", bar: bool = True) -> None:
        """Print nothing if the speaker is quiet; draw bars only if ``bar`` and stderr is a terminal.

        Args:
            speaker: prints the lines.
            state: the line that is repeated until the first progress comes.
            bar: whether bars are wanted.
        """
        self.state = state
        self._speaker = speaker
        self._bars = DrawnBars() if bar and not speaker.quiet and can_draw() else None
        self._stages: dict[str, Stand] = {}
        self._idle_since = time.monotonic()  # where the next stage begins
        self._ended = threading.Event()

    @property
    def is_drawn(self) -> bool:
        """Whether there are bars, and not lines."""
        return self._bars is not None

    def __enter__(self) -> Self:
        self._idle_since = time.monotonic()
        if not self.is_drawn:
            threading.Thread(target=self._repeat_state, name="progress", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._bars is not None:
            self._bars.end()

    def _repeat_state(self) -> None:
        """Print :attr:`state` every :data:`LINE_SECONDS`, in a thread, since a single step may take much longer."""
        began = time.monotonic()
        while not self._ended.wait(LINE_SECONDS):
            self._speaker.say(f"{self.state} ({clock(time.monotonic() - began)})")

    def restart(self) -> None:
        """Let the next stage begin now."""
        self._idle_since = time.monotonic()

    def show(self, progress: Progress) -> None:
        """Show how far a stage is."""
        words, counted = STAGES.get(progress.stage, (progress.stage, STEPS))
        name = progress.note or words
        key = progress.stage if counted is BYTES else name  # the notes of a download are its files, counted together
        stand = Stand(name, counted, progress.done, progress.total, *self._beginning(key, progress, counted))
        self._stages[key] = stand
        now = self._idle_since = time.monotonic()
        if self._bars is not None:
            self._bars.show(key, stand)
            return
        speed, left = stand.speed(now), stand.left(now) if stand.done < stand.total else ""
        self.state = ", ".join(filter(None, (f"{name}: {stand.counts}", speed, left and f"about {left} left")))

    def _beginning(self, key: str, progress: Progress, counted: Counted) -> tuple[float, int]:
        """Return when a stage began, and how much was done before; bytes of an earlier download count as done."""
        before = self._stages.get(key)
        if before is not None and progress.done >= before.done:
            return before.began, before.first
        return self._idle_since, progress.done if counted is BYTES else 0  # it is new, or runs once more

    def overall(self, title: str, parts: int) -> OnProgress:
        """Return an ``on_progress`` that shows ``parts`` stages of equal size, told apart by their notes, as one."""
        done_of: dict[str, int] = {}

        def show(progress: Progress) -> None:
            done_of[progress.note] = progress.done
            self.show(replace(progress, done=sum(done_of.values()), total=parts * progress.total, note=title))

        return show


class BuildProgress:
    """Show the events of a build or a fill; :meth:`tell` is its listener."""

    def __init__(self, speaker: Speaker, bar: bool = True, what: str = "indexing", note_model: bool = False) -> None:
        """Take the name of the work, and whether the choice of the model is worth a note to every user."""
        self._bar = ProgressBar(speaker, "preparing", bar)
        self._speaker, self._what, self._note_model = speaker, what, note_model
        self._committed: tuple[int, int] | None = None
        self._began = time.monotonic()
        self._is_begun = False

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)

    def kept(self, index: str | Path) -> str:
        """Return a sentence on how much of the work is stored in ``index``; empty while nobody knows the total."""
        if self._committed is None:
            return ""
        done, total = self._committed
        return f"{done} of {total} images are done and in {index}; the same command goes on" if total else ""

    def tell(self, event: "BuildEvent") -> None:
        """Show one event."""
        if event.stage in ("planned", "commit"):
            self._committed = (event.done, event.total)
        if event.stage == "hash":
            self._bar.show(event)
        elif event.stage == "planned":
            self._speaker.detail(event.note)
        elif event.stage == "model":
            self._say_model(event.note)
        elif event.stage == "estimate" and event.estimate is not None:
            self._speaker.detail(describe_estimate(event.estimate))
        elif event.stage == "loaded":
            self._began = time.monotonic()
            self._bar.restart()
            self._bar.state = f"{self._what}: no batch is done yet"
        elif event.stage == "encode":
            self._show_batch(event)
        elif event.stage == "train":
            self._bar.state = f"training the FAISS index of {event.note} on {event.total} images"
            self._speaker.say(self._bar.state)
        elif event.stage == "calibrate":
            self._bar.state = f"scoring random pairs of {event.note}, for percentiles"
            self._speaker.detail(self._bar.state)

    def _say_model(self, model: str) -> None:
        if self._note_model:
            self._speaker.note(f"model {model}; choose another with --model")
        else:
            self._speaker.detail(f"model {model}")

    def _show_batch(self, event: "BuildEvent") -> None:
        self._bar.show(Progress(self._what, event.done, event.total))
        left = time_left(event.done, event.total, time.monotonic() - self._began)
        if not self._bar.is_drawn and not self._is_begun and left >= LINE_SECONDS:
            self._speaker.say(self._bar.state)  # say at once how long a long build will take
        self._is_begun = True


def time_left(done: float, total: float, spent: float) -> float:
    """Return the seconds left if the rest goes as fast as the first ``done``."""
    return max(0.0, total - done) * spent / done


def describe_speeds(speeds: Mapping[str, float]) -> str:
    """Return the slowest stage of a build, and the speed of each."""
    from retrieval.indexing.reports import slowest

    each = ", ".join(f"{stage} {pace(images, 1.0)}" for stage, images in speeds.items())
    return f"{slowest(speeds)} is the slowest stage ({each})"
