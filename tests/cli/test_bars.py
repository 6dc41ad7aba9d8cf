"""Progress bars: every width keeps the count, and nothing is drawn after the end."""

import os
import pty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.terminal.bars import BYTES, IMAGES, QUERIES, Counted, Stand, bar_line, can_draw
from cli.terminal.process import Speaker
from cli.terminal.progress import BuildProgress, ProgressBar
from retrieval.indexing.reports import BuildEvent
from retrieval.progress import Progress

LONG = "images of the gallery"


@given(
    name=st.text(min_size=1, max_size=60),
    counted=st.sampled_from([IMAGES, QUERIES, BYTES]),
    done=st.integers(0, 10**6),
    rest=st.integers(0, 10**6),
    spent=st.floats(0.01, 1e6),
    width=st.integers(20, 200),
)
@pytest.mark.thorough
def test_a_line_fits_and_keeps_its_count(
    name: str, counted: Counted, done: int, rest: int, spent: float, width: int
) -> None:
    stand = Stand(name, counted, done, done + rest, began=0.0)
    line = bar_line(stand, spent, width)
    assert len(line) <= width
    assert stand.counts in line
    assert "\n" not in line


def test_a_narrow_terminal_loses_the_speed_then_the_bar_then_the_end_of_the_name() -> None:
    stand = Stand(LONG, IMAGES, 30, 120, began=0.0)
    assert [bar_line(stand, 60.0, width) for width in (80, 50, 42, 20, 4)] == [
        f"{LONG}  {6 * '━'}{20 * '─'}  30/120  2.0 s per image  3:00",
        f"{LONG}  {3 * '━'}{10 * '─'}  30/120  3:00",
        f"{LONG}  30/120  3:00",
        "images of t…  30/120",
        "30/1",
    ]


def read_all(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return b""


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Make stderr a terminal of 40 columns; the function returns everything that was drawn."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    with os.fdopen(theirs, "w", encoding="utf-8") as stream, redirect_stderr(stream):
        yield lambda: b"".join(iter(partial(read_all, ours), b"")).decode()
    os.close(ours)


def test_bars_stay_as_they_are_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as drawn:
        with ProgressBar(Speaker()) as bar:
            bar.show(Progress("gallery", 3, 8))
        bar.__exit__()
        bar.show(Progress("gallery", 4, 8))
        bar.show(Progress("queries", 1, 8))
        shown = drawn()
    assert shown.count("\n") == 1, "drawn once"
    assert f"{LONG}  3/8" in shown
    assert "4/8" not in shown
    assert "queries" not in shown


@pytest.mark.parametrize(("name", "draws"), [("xterm", True), ("dumb", False), (None, False)])
def test_a_terminal_that_moves_no_cursor_gets_lines(
    name: str | None, draws: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(monkeypatch):
        monkeypatch.delenv("TERM") if name is None else monkeypatch.setenv("TERM", name)
        assert can_draw() == ProgressBar(Speaker()).is_drawn == draws
        assert not ProgressBar(Speaker(), bar=False).is_drawn
        assert not ProgressBar(Speaker(quiet=True)).is_drawn


def test_files_that_are_compared_are_counted_before_a_build_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as drawn, BuildProgress(Speaker()) as progress:
        progress.tell(BuildEvent("hash", 3, 500))
        progress.tell(BuildEvent("planned", 0, 2))
        assert "3/500" in drawn()


def test_a_folder_with_markup_in_its_name_is_drawn_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as drawn:
        with ProgressBar(Speaker()) as bar:
            bar.show(Progress("work", 1, 2, "[/red] \x1b[2J"))
        shown = drawn()
    assert "[/red] \\x1b[2J  ━━━━" in shown
