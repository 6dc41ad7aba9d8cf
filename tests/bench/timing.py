"""Time variants in turns, and read peak memory. Clocks are read after a GPU has finished its work."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

Row = tuple[str, str, str]  # what, figure, note
Figures = dict[str, float]
T = TypeVar("T")


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


def timed(run: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds that ``run`` takes, and its result."""
    start = time.perf_counter()
    result = run()
    finish()
    return time.perf_counter() - start, result


def cost(name: str, run: Callable[[], T]) -> tuple[Figures, T]:
    """Return the seconds that ``run`` takes, by the clock and of the processor, and its result."""
    before = time.process_time()
    seconds, result = timed(run)
    return {name: seconds, f"{name}_cpu": time.process_time() - before}, result


def slope(found: Sequence[Figures], wanted: Sequence[int], name: str) -> str:
    """Return the log-log slope of a figure between the two largest sizes, where 1 is linear; "": unknown."""
    if len(found) < 2 or any(each.get(name, 0) <= 0 for each in found[-2:]):
        return ""
    return f"slope {math.log(found[-1][name] / found[-2][name]) / math.log(wanted[-1] / wanted[-2]):.2f}"
