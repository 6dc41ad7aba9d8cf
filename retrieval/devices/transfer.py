"""Copies between host memory and a GPU that run beside kernels; on a CPU nothing is copied.

A copy runs beside kernels only between page-locked ("pinned") memory and the GPU, on a stream of its own. Otherwise the
copy, and the thread that asked for it, wait for all earlier work of the GPU. Each GPU has one stream for each
direction. Events keep the order on the GPU without stopping a thread: a copy down waits for the kernels that compute
its tensor, and kernels wait for the copy up of a tensor that they read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

Fetched = Callable[[], NDArray[Any]]
"""Wait for a copy and return it."""


@dataclass(frozen=True)
class Upload:
    """Tensors on their way to a device; :meth:`tensors` makes them safe to use."""

    _tensors: Mapping[str, Tensor]
    _copied: Any = None  # the CUDA event of the copies; None: nothing to wait for

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors; later work of the calling thread's current stream waits for the copies.

        Call this in the thread that uses the tensors, as late as possible. The thread itself does not wait.
        """
        if self._copied is not None:
            for tensor in self._tensors.values():
                user = torch.cuda.current_stream(tensor.device)
                user.wait_event(self._copied)
                # The memory belongs to the copying stream. Without this, a later upload could overwrite it once the
                # last reference is gone, while kernels of `user` still read it.
                tensor.record_stream(user)
        return dict(self._tensors)


def begin_upload(arrays: Mapping[str, NDArray[Any]], device: torch.device) -> Upload:
    """Begin to copy ``arrays`` to ``device`` while it computes; any thread may call this.

    The arrays may be changed or freed as soon as this returns. The exception is a CPU, where the tensors share the
    arrays' memory.
    """
    if device.type != "cuda":
        return Upload({name: torch.from_numpy(array).to(device) for name, array in arrays.items()})
    copies = _stream("up", device)
    with torch.cuda.stream(copies):
        # torch reuses a pinned block only after the copies from it are done, even if no reference is left.
        tensors = {
            name: torch.from_numpy(array).pin_memory().to(copies.device, non_blocking=True)
            for name, array in arrays.items()
        }
        return Upload(tensors, copies.record_event())


def upload(arrays: Mapping[str, NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """Copy ``arrays`` to ``device`` for the calling thread; see :func:`begin_upload` and :meth:`Upload.tensors`."""
    return begin_upload(arrays, device).tensors()


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy one array to ``device`` for the calling thread; see :func:`upload`."""
    return upload({"": array}, device)[""]


def fetch(tensor: Tensor) -> Fetched:
    """Begin to copy ``tensor`` to host memory and return a function that waits for the copy, in any thread.

    Call this in the thread whose current stream computes the tensor. On a CPU the array shares the tensor's memory.
    """
    if tensor.device.type != "cuda":
        array: NDArray[Any] = tensor.cpu().numpy()
        return lambda: array
    # The computing stream makes the tensor contiguous, so that the copying stream only copies.
    source = tensor.contiguous()
    copies = _stream("down", source.device)
    copies.wait_stream(torch.cuda.current_stream(source.device))
    with torch.cuda.stream(copies):
        target = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
        target.copy_(source, non_blocking=True)
        copied = copies.record_event()
    # The memory belongs to the computing stream, which must not reuse it before the copy has read it.
    source.record_stream(copies)

    def wait() -> NDArray[Any]:
        copied.synchronize()
        found: NDArray[Any] = target.numpy()
        return found

    return wait


class DeviceClock:
    """Measures how long a device takes for the work that this thread launches between the clock's start and stop.

    A GPU runs its work later than the thread launches it, so the GPU itself records the times. Two batches launched one
    after the other are not counted twice; a batch includes gaps in which the GPU waits for this thread.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin = self._note()
        self._end: Any = None

    def _note(self) -> Any:
        if self._device.type != "cuda":
            return perf_counter()
        untyped: Any = torch.cuda.Event
        return torch.cuda.current_stream(self._device).record_event(untyped(enable_timing=True))

    def stop(self) -> None:
        """Record the end, after all work is launched."""
        self._end = self._note()

    def seconds(self) -> float:
        """Wait until the device has finished, and return the time that it took."""
        if self._device.type != "cuda":
            return float(self._end - self._begin)
        self._end.synchronize()
        return 1e-3 * float(self._begin.elapsed_time(self._end))


def _stream(direction: Literal["up", "down"], device: torch.device) -> Any:
    return _stream_of(direction, torch.cuda.current_device() if device.index is None else device.index)


# The cache lives as long as the process, like the CUDA context itself. torch keeps free memory by stream, so streams
# that belonged to an engine or a build would each hold memory that the others could not use.
@cache
def _stream_of(direction: Literal["up", "down"], index: int) -> Any:
    # Two threads that come first at once may make two streams. That is safe: every copy has an event of its own.
    untyped: Any = torch.cuda.Stream
    return untyped(torch.device("cuda", index))
