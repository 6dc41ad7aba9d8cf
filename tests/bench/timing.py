"""Time variants in turns; peak memory."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

Row = tuple[str, str, str]  # what, figure, note


def in_turns(variants: dict[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Return the median milliseconds of each variant, run in turns so that a busy moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant()
            if number:  # the first round warms up
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory() -> int:
    """Return the most bytes that this process ever held (Linux)."""
    # Not getrusage: its figure of a new process begins with that of the process which started it.
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
