"""Copies between this machine's memory and a GPU's, beside what the GPU computes; on a CPU nothing is copied.

A copy runs beside kernels only from or into page-locked ("pinned") memory and on a stream of its own; otherwise it
waits until the GPU has done all that it was given, and the thread that asked waits with it. Each direction has one
stream a GPU. Order is kept by events: copies down wait for what made the tensor, and whoever uses a tensor that came
up waits for its copy, on the GPU, without stopping a thread.
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
"""Waits for a copy, and returns it."""


@dataclass(frozen=True)
class Upload:
    """Tensors on their way to a device; :meth:`tensors` says when they may be used."""

    _tensors: Mapping[str, Tensor]
    _copied: Any = None  # a CUDA event; None: there is nothing to wait for

    def tensors(self) -> dict[str, Tensor]:
        """Return them for use by this thread: what its current stream is given from now on waits for the copies.

        To be called by the thread that uses the tensors, as late as possible; the thread itself does not wait.
        """
        if self._copied is not None:
            for tensor in self._tensors.values():
                user = torch.cuda.current_stream(tensor.device)
                user.wait_event(self._copied)
                # Their memory belongs to the copying stream: without this it could be written to again, by a later
                # upload, as soon as the last reference is gone, while kernels of `user` still read it.
                tensor.record_stream(user)
        return dict(self._tensors)


def begin_upload(arrays: Mapping[str, NDArray[Any]], device: torch.device) -> Upload:
    """Begin to copy ``arrays`` to ``device``, beside whatever it computes; may be called in any thread.

    The arrays may be changed or freed as soon as this returns, but not on a CPU: there the tensors are the arrays'
    own memory.
    """
    if device.type != "cuda":
        return Upload({name: torch.from_numpy(array).to(device) for name, array in arrays.items()})
    copies = _stream("up", device)
    with torch.cuda.stream(copies):
        # A pinned block that is no longer referred to stays taken until the copies that were begun from it are done.
        tensors = {
            name: torch.from_numpy(array).pin_memory().to(copies.device, non_blocking=True)
            for name, array in arrays.items()
        }
        return Upload(tensors, copies.record_event())


def upload(arrays: Mapping[str, NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """Copy ``arrays`` to ``device`` for use by this thread; see :func:`begin_upload` and :meth:`Upload.tensors`."""
    return begin_upload(arrays, device).tensors()


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy one array to ``device`` for use by this thread; see :func:`upload`."""
    return upload({"": array}, device)[""]


def fetch(tensor: Tensor) -> Fetched:
    """Begin to copy ``tensor`` into this machine's memory, and return what waits for it; any thread may call that.

    To be called by the thread whose current stream makes the tensor. On a CPU the array is the tensor's own memory.
    """
    if tensor.device.type != "cuda":
        array: NDArray[Any] = tensor.cpu().numpy()
        return lambda: array
    # Made contiguous where it is computed, so that the copying stream does nothing but copy.
    source = tensor.contiguous()
    copies = _stream("down", source.device)
    copies.wait_stream(torch.cuda.current_stream(source.device))
    with torch.cuda.stream(copies):
        target = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
        target.copy_(source, non_blocking=True)
        copied = copies.record_event()
    # Its memory belongs to the computing stream, which must not use it again before the copy has read it.
    source.record_stream(copies)

    def wait() -> NDArray[Any]:
        copied.synchronize()
        found: NDArray[Any] = target.numpy()
        return found

    return wait


class DeviceClock:
    """How long a device takes for what it is given by this thread between the making of the clock and its stop.

    A GPU works on what it was given later: it notes itself when it begins and ends. So two batches that were given one
    behind the other are not counted twice; gaps in which it waits for this thread belong to the batch.
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
        """Note that all has been given."""
        self._end = self._note()

    def seconds(self) -> float:
        """Wait until the device has done it, and return how long it took."""
        if self._device.type != "cuda":
            return float(self._end - self._begin)
        self._end.synchronize()
        return 1e-3 * float(self._begin.elapsed_time(self._end))


def _stream(direction: Literal["up", "down"], device: torch.device) -> Any:
    return _stream_of(direction, torch.cuda.current_device() if device.index is None else device.index)


@cache
def _stream_of(direction: Literal["up", "down"], index: int) -> Any:
    # Two threads that come first at once may make two streams; each upload's and fetch's order is its own event's.
    untyped: Any = torch.cuda.Stream
    return untyped(torch.device("cuda", index))
