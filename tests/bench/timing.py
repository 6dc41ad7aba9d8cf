"""Time variants in turns; peak memory. A GPU's work is waited for before a clock is read."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

Row = tuple[str, str, str]  # what, figure, note


def finish() -> None:
    """Wait until every GPU that this process uses has done all that it was given; where none is in use, do nothing."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for number in range(torch.cuda.device_count()):
            if torch.cuda.memory_reserved(number):  # waiting for another would begin to use it
                torch.cuda.synchronize(number)


def in_turns(variants: dict[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Return the median milliseconds of each variant, run in turns so that a busy moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, variant in variants.items():
            finish()
            start = time.perf_counter()
            variant()
            finish()
            if number:  # the first round warms up
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory() -> int:
    """Return the most bytes that this process ever held (Linux)."""
    # Not getrusage: its figure of a new process begins with that of the process which started it.
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def device_peak(device: str) -> int:
    """Return the most bytes of its own memory that a GPU ever gave this process; 0 for the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else 0
