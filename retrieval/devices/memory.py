"""Free and used memory of a device, and errors of full memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from retrieval.devices.cgroups import memory_left
from retrieval.errors import MemoryFullError

if TYPE_CHECKING:
    import torch


def available_memory(device: "torch.device | None" = None) -> int | None:
    """Return the bytes that this process can still take on ``device`` (default: the CPU); None if the system hides it.

    Memory of file caches counts as free. Inside a container its limit counts too.
    """
    import psutil
    import torch

    if device is not None and device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch uses it again
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    try:
        free = int(psutil.virtual_memory().available)
    except (OSError, psutil.Error):  # a sandbox without /proc
        return None
    granted = memory_left()
    return free if granted is None else min(free, granted)


def is_memory_full(error: RuntimeError) -> bool:
    """Return whether torch could not allocate memory, on any device."""
    import torch

    # The CPU's allocator has no error type of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def raising_memory_full(images: int, device: "torch.device") -> Iterator[None]:
    """Turn a failed allocation of the work inside, on ``images`` at a time, into an error with a remedy.

    Raises:
        MemoryFullError: torch could not allocate memory on ``device``.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_memory_full(error):
            raise
        free = available_memory(device)
        left = "" if free is None else f" ({free / 1e9:.1f} GB are free)"
        message = f"the memory of {device} does not hold {images} images computed at a time{left}"
        if images > 1:
            raise MemoryFullError(message, advice="fewer-images-at-a-time", images=images) from error
        raise MemoryFullError(message, advice="smaller-model") from error


def resident_memory(device: "torch.device") -> int | None:
    """Return the bytes that this process holds on ``device``; None if the system hides it."""
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    try:
        return int(psutil.Process().memory_info().rss)
    except (OSError, psutil.Error):
        return None
