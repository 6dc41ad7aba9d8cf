"""Time variants in turns, and read peak memory. Clocks are read after a GPU has finished its work."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

Row = tuple[str, str, str]  # what, figure, note


def finish() -> None:
    """Wait until every GPU that this process uses has finished its work."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for number in range(torch.cuda.device_count()):
            if torch.cuda.memory_reserved(number):  # waiting for another would begin to use it
                torch.cuda.synchronize(number)


def in_turns(
    variants: dict[str, Callable[[], object]], rounds: int = 7, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the median milliseconds of each variant, run in turns so that a busy moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, variant in variants.items():
            finish()
            start = clock()
            variant()
            finish()
            if number:  # the first round warms up
                times[name].append(1e3 * (clock() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory() -> int:
    """Return the peak memory of this process in bytes (Linux)."""
    # Not getrusage: its figure of a new process begins with that of the process which started it.
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def device_peak(device: str) -> int:
    """Return the peak GPU memory of this process in bytes; 0 for the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else 0
