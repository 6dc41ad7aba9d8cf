"""Free and used memory of a device, and errors of full memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.errors import MemoryFullError

if TYPE_CHECKING:
    import torch


def available_memory(device: "torch.device | None" = None) -> int | None:
    """Return the bytes that ``device`` (the CPU by default) can still give; None where the system does not say.

    Of the machine's own memory, what caches hold counts as free.
    """
    import torch

    if device is not None and device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for its next use
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def is_memory_full(error: RuntimeError) -> bool:
    """Say whether torch could not get the memory that it needs, on whatever device."""
    import torch

    # A CPU's allocator has no type of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def raising_memory_full(images: int, device: "torch.device") -> Iterator[None]:
    """Say what helps where the memory of ``device`` does not hold ``images`` that are computed at a time.

    Raises:
        MemoryFullError: torch could not get the memory that the work inside needs.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_memory_full(error):
            raise
        free = available_memory(device)
        left = "" if free is None else f" ({free / 1e9:.1f} GB are free)"
        several = f"choose less than {images} with --batch-size"
        advice = several if images > 1 else "choose a smaller --image-size, another --model or --device cpu"
        raise MemoryFullError(
            f"the memory of {device} does not hold {images} images computed at a time{left}; {advice}"
        ) from error


def resident_memory(device: "torch.device") -> int | None:
    """Return the bytes that this process holds on ``device``; None where the system does not say."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), None)
