"""Run a command: exit codes, one-line errors, messages on stderr, logging, and environment variables."""

import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import typer

from cli.advice import sentence_of
from cli.terminal.plain_values import take_plain_values
from cli.terminal.printing import guarded_streams, say, show
from retrieval.devices.memory import is_memory_full
from retrieval.errors import DiffSimError, MemoryFullError
from retrieval.text import escaped

INTERRUPTED = 130
LOGGERS = (logging.getLogger("retrieval"), logging.getLogger("index_store"))
HELP = {"help_option_names": ["--help", "-h"]}


class Stopped(BaseException):
    """Replaces KeyboardInterrupt where a command can say which part of its work is kept; see :func:`stopping`."""


@contextmanager
def stopping(what_is_kept: Callable[[], str]) -> Iterator[None]:
    """On Ctrl-C, end the command with "stopped" and the text of ``what_is_kept``, unless that is empty."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise Stopped(what_is_kept()) from interrupt


@contextmanager
def importing() -> Iterator[None]:
    """Import libraries without collecting garbage: there is none, and each collection looks at all they made so far.

    Collections skip these objects from then on. For torch they would take a tenth of its import.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def run(app: typer.Typer) -> NoReturn:
    """Run ``app`` and exit: with 0, or with the error's own code and one sentence on stderr.

    A DiffSimError is meant for the user and gets no traceback. Any other error is a bug and shows one.
    """
    _quiet_libraries()
    _wait_without_spinning()
    with guarded_streams():
        code = _outcome(app)
    sys.exit(code)


def _outcome(app: typer.Typer) -> int:
    try:
        _check_working_directory()
        with _silent_log():
            command = typer.main.get_command(app)
            take_plain_values(command)
            code = int(command(standalone_mode=False) or 0)
        sys.stdout.flush()
    except DiffSimError as error:
        say(f"error: {sentence_of(error)}")
        return error.exit_code
    except PermissionError as error:
        say(f"error: this user may not read or write {error.filename or 'a file'}; change its permissions")
        return DiffSimError.exit_code
    except Stopped as end:
        _stop(str(end))
    except KeyboardInterrupt:  # before typer began
        _stop("")
    except Exception as error:
        if is_memory_full(error):
            say(
                "error: the memory of this machine or of the device is full; end other programs, or give less at a time"
            )
            return MemoryFullError.exit_code
        return _wrong_usage(error)
    if code == INTERRUPTED:  # typer turns KeyboardInterrupt into this
        _stop("")
    return code


def _check_working_directory() -> None:
    """Raise a DiffSimError if the working directory was deleted, since every relative path would fail."""
    if {"--help", "-h", "--version"} & set(sys.argv):
        return
    try:
        os.getcwd()
    except OSError as error:
        raise DiffSimError("the working directory does not exist any more; change to another folder") from error


def _stop(kept: str) -> NoReturn:
    say(f"stopped: {kept}" if kept else "stopped")
    with suppress(DiffSimError):
        sys.stdout.flush()
    os._exit(INTERRUPTED)  # sys.exit would wait for the batch that a thread is still computing, perhaps for minutes


def _wrong_usage(error: Exception) -> int:
    """Print an error of the command line's words as one sentence and return its exit code; raise any other error."""
    shown: Any = error
    message = getattr(error, "format_message", None)
    if message is None:  # click's errors have it; typer bundles its own copy of click, so no class can be named
        raise error
    if type(error).__name__ == "NoArgsIsHelpError":
        shown.show()
    else:
        text = message().strip().rstrip(".?").replace(". Did", "; did").replace("Value error, ", "")
        context = getattr(error, "ctx", None)
        see = f"; see: {context.command_path} --help" if context is not None else ""
        say(f"error: {text[:1].lower()}{text[1:]}{see}")
    return int(shown.exit_code)


@dataclass(frozen=True)
class Speaker:
    """The messages of a command on stderr: none with ``quiet``, more with ``verbose``."""

    quiet: bool = False
    verbose: bool = False

    def say(self, line: str) -> None:
        """Print a line, unless ``quiet``."""
        if not self.quiet:
            say(line)

    def note(self, line: str) -> None:
        """Print a line that every user should read, unless ``quiet``."""
        self.say(f"note: {line}")

    def detail(self, line: str) -> None:
        """Print a line if ``verbose``."""
        if self.verbose:
            self.say(line)


class _LogLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Through the present sys.stderr, which a progress bar may have replaced; a traceback has several lines.
        for line in self.format(record).split("\n"):
            say(line)


class _LogFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return escaped(super().formatMessage(record))


def log_to_stderr(level: int) -> None:
    """Print the library's log lines of ``level`` and above, until the command ends."""
    handler = _LogLines()
    handler.setFormatter(_LogFormatter("%(levelname)s %(name)s: %(message)s"))
    for logger in LOGGERS:
        logger.handlers = [handler]
        logger.setLevel(level)


@contextmanager
def _silent_log() -> Iterator[None]:
    """Print no log lines of the library. Without a handler, Python would print its warnings on stderr."""
    before = [(logger.handlers, logger.propagate, logger.level) for logger in LOGGERS]
    for logger in LOGGERS:
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    try:
        yield
    finally:
        for logger, (handlers, propagate, level) in zip(LOGGERS, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def work_offline(offline: bool) -> None:
    """Forbid the model hub to every library. Call it before their import, which reads these variables."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"


def clock(seconds: float) -> str:
    """Return a duration as ``0:48`` or ``3:20:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def duration(seconds: float) -> str:
    """Return a duration as people say it: ``0.4 s``, ``48 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def print_version(wanted: bool) -> None:
    """Print the version and exit: the callback of --version."""
    if wanted:
        from retrieval.version import CREATED_BY

        show(CREATED_BY)
        raise typer.Exit


def _quiet_libraries() -> None:
    # Pillow warns about odd but usable images. We report unusable ones ourselves, as rejects.
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    # These libraries report tied and unused tensors, which no user needs. Missing tensors are an error of ours.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")


def _wait_without_spinning() -> None:
    # OpenMP reads this when torch is imported. By default its threads wait in a busy loop and take the core from the
    # thread they wait for: a search of 60 ms took 3 s beside two busy processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
