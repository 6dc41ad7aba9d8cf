"""How every command ends: exit codes, one-line errors, and a quiet end of a broken pipe."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from cli.advice import sentence_of
from retrieval.errors import DiffSimError

INTERRUPTED = 130


class Stopped(BaseException):
    """What a command raises in the place of KeyboardInterrupt where it can say what is kept; see :func:`stopping`."""


@contextmanager
def stopping(what_is_kept: Callable[[], str]) -> Iterator[None]:
    """Say on Ctrl-C, after "stopped", what of the work inside is kept; an empty text says nothing."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise Stopped(what_is_kept()) from interrupt


def run(app: typer.Typer) -> NoReturn:
    """Run ``app`` and exit: 0, or the error's own code with one sentence on stderr.

    Errors raised on purpose are for the user and get no traceback; anything else is a bug and shows where it is.
    """
    _quiet_libraries()
    _wait_without_spinning()
    try:
        code = app(standalone_mode=False)
    except DiffSimError as error:
        say(f"error: {sentence_of(error)}")
        sys.exit(error.exit_code)
    except PermissionError as error:
        say(f"error: {error.filename or 'a file'} may not be read or written by this user; change its permissions")
        sys.exit(DiffSimError.exit_code)
    except Stopped as end:
        _stop(str(end))
    except KeyboardInterrupt:  # before typer was at work
        _stop("")
    except BrokenPipeError:
        # The reader of our output has gone (`| head`). Python would complain again while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        sys.exit(_wrong_usage(error))
    if code == INTERRUPTED:  # typer turns KeyboardInterrupt into this
        _stop("")
    sys.exit(code)


def _stop(kept: str) -> NoReturn:
    say(f"stopped: {kept}" if kept else "stopped")
    # Not sys.exit: Python would wait for the batch that a thread is still computing, which may take minutes.
    sys.stdout.flush()
    os._exit(INTERRUPTED)


def _wrong_usage(error: Exception) -> int:
    """Say what is wrong with the words of a command, as other errors are said; raise what is something else."""
    shown: Any = error
    message = getattr(error, "format_message", None)
    if message is None:  # none of click's errors, which typer keeps in a place of its own
        raise error
    if type(error).__name__ == "NoArgsIsHelpError":
        shown.show()
    else:
        text = message().strip().rstrip(".?").replace(". Did", "; did").replace("Value error, ", "")
        context = getattr(error, "ctx", None)
        see = f"; see: {context.command_path} --help" if context is not None else ""
        say(f"error: {text[:1].lower()}{text[1:]}{see}")
    return int(shown.exit_code)


def say(line: str) -> None:
    """Print one line for people: stderr, so that stdout holds results only."""
    print(line, file=sys.stderr, flush=True)


def speaker(quiet: bool) -> Callable[[str], None]:
    """Return :func:`say`, or a function that says nothing."""
    return (lambda line: None) if quiet else say


def work_offline(offline: bool) -> None:
    """Forbid the hub to every library; they read these variables when they are imported."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"


def clock(seconds: float) -> str:
    """Return a span of time as ``0:48`` or ``3:20:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def print_version(wanted: bool) -> None:
    """Print the version and end, as the callback of --version."""
    if wanted:
        from retrieval.version import CREATED_BY

        print(CREATED_BY)
        raise typer.Exit


def _quiet_libraries() -> None:
    # Odd but usable images make Pillow warn or log; what can't be used is reported as a reject, by us.
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    # A model's tied or unused tensors are no news to a user; what can't be loaded is an error of ours.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")


def _wait_without_spinning() -> None:
    # Read by OpenMP when torch is imported. Its threads wait for each other in a loop otherwise, and keep the core from
    # the one that is waited for where anything else runs: a search of 60 ms took 3 s beside two busy processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
