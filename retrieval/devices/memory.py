"""Free and used memory of a device, and errors of full memory."""

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from retrieval.devices.cgroups import memory_left
from retrieval.errors import MemoryFullError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


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


_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|_STATUS_ALLOC_FAILED|bad_alloc"
    r"|failed to allocate|MemoryAllocation",
    re.IGNORECASE,
)
"""The words of CUDA, MPS, cuBLAS, cuDNN and their like, of torch's CPU allocator, and of C++."""


def is_memory_full(error: BaseException) -> bool:
    """Return whether ``error`` says that memory could not be allocated, on any device.

    Few libraries have an error type for it: others raise a RuntimeError that only its words tell apart.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryFullError | MemoryError) or (
        isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None
    )


@contextmanager
def raising_memory_full(images: int, device: "torch.device") -> Iterator[None]:
    """Turn a failed allocation of the work inside, on ``images`` at a time, into an error with a remedy.

    Raises:
        MemoryFullError: memory could not be allocated on ``device``, or in main memory.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryFullError) or not is_memory_full(error):
            raise
        message = f"the memory of {device} does not hold {images} images computed at a time{_free(device)}"
        if images > 1:
            raise MemoryFullError(message, advice="fewer-images-at-a-time", images=images) from error
        raise MemoryFullError(message, advice="smaller-model") from error


def tried_twice(work: Callable[[], T], make_room: Callable[[], object], device: "torch.device") -> T:
    """Return what a search's ``work`` returns. Where memory runs out, ``make_room`` and try the work once more.

    Raises:
        MemoryFullError: memory runs out again.
    """
    try:
        return work()
    except Exception as error:
        if not is_memory_full(error):
            raise
    # Outside the handler: the error's traceback would keep the tensors of the first try.
    make_room()
    try:
        return work()
    except Exception as error:
        if not is_memory_full(error):
            raise
        message = f"the memory of {device} does not hold what a search computes{_free(device)}"
        raise MemoryFullError(message, advice="smaller-search") from error


def _free(device: "torch.device") -> str:
    free = available_memory(device)
    return "" if free is None else f" ({free / 1e9:.1f} GB are free)"


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
