"""How every command ends: exit codes, one-line errors, and a quiet end of a broken pipe."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

import typer

from retrieval.errors import DiffSimError

INTERRUPTED = 130


def run(app: typer.Typer) -> NoReturn:
    """Run ``app`` and exit: 0, or the error's own code with one sentence on stderr.

    Errors raised on purpose are for the user and get no traceback; anything else is a bug and shows where it is.
    """
    _quiet_libraries()
    _wait_without_spinning()
    try:
        app(standalone_mode=True)
    except DiffSimError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as end:  # typer turns the first into the second
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        say("stopped")
        # Not sys.exit: Python would wait for the batch that a thread is still computing, which may take minutes.
        sys.stdout.flush()
        os._exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`). Python would complain again while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


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
