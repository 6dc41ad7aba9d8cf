"""Read image files in threads, batch after batch, and choose how large a batch is."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from retrieval.devices.memory import available_memory
from retrieval.devices.selection import choose_device
from retrieval.encoding.loaded_models import ModelInputs
from retrieval.encoding.timing import DECODE, StageClock
from retrieval.errors import ImageError
from retrieval.files import is_object
from retrieval.images.decoding import DecodeRules, FileFacts, read_image
from retrieval.images.file_states import state_of
from retrieval.images.room import Memory
from retrieval.models.registry import describe_extractor
from retrieval.settings import BuildSettings, ModelSettings

if TYPE_CHECKING:
    import torch

BATCHES_AHEAD = 2  # batches that are decoded before they are asked for
MAX_WORKERS = 8
# Memory of all images that are decoded at the same time: enough for one of the most pixels that are allowed, and for
# photos in MAX_WORKERS threads; more threads share it. Never more than half of what is free.
DECODING_BYTES = 2**32
DECODING_BYTES_A_THREAD = 2**27
LEAST_DECODING_BYTES = 2**28
USABLE = 0.8  # share of the free memory for a batch: its size is an estimate, and allocators leave gaps


@dataclass(frozen=True)
class Failure:
    """An image that can't be used. Size and time are those from before the read: the file may be growing."""

    error: ImageError
    size: int  # bytes; -1: unknown
    mtime_ns: int  # -1: unknown


NOT_ASKED = (-1, -1, -1)
Outcome = tuple[FileFacts, ModelInputs] | Failure


@dataclass(frozen=True)
class FileBatch:
    """The files of one batch and, in the same order, the outcome of reading each."""

    files: tuple[Path, ...]
    outcomes: tuple[Outcome, ...]


class DecodingTurns:
    """Leaves the cores to those that compute: threads decode side by side only while less than a batch is ready.

    Otherwise one thread decodes ahead. On two cores, two threads that decode beside two that compute slowed these.
    """

    def __init__(self, batch_size: int) -> None:
        """Say how many images are a batch."""
        self._batch_size = batch_size
        self._ready = self._running = 0
        self._changed = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and decode one image inside."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running or self._ready + self._running < self._batch_size)
            self._running += 1
        try:
            yield
        finally:
            self._count(running=-1, ready=1)

    def hand_over(self, images: int) -> None:
        """Say that so many images are on their way to those that compute."""
        self._count(ready=-images)

    def _count(self, running: int = 0, ready: int = 0) -> None:
        with self._changed:
            self._running += running
            self._ready += ready
            self._changed.notify_all()


def read_batches(
    files: Sequence[Path],
    batch_size: int,
    workers: int,
    rules: DecodeRules,
    prepare: Callable[[Image.Image], ModelInputs],
    clock: StageClock | None = None,
    turns: DecodingTurns | None = None,
) -> Generator[FileBatch, None, None]:
    """Yield ``files`` in order, ``batch_size`` at a time, decoded and prepared by ``workers`` threads.

    A batch is a range of positions in ``files``; unusable images keep their position and become a Failure. A resumed
    build therefore computes the same batches as an uninterrupted one. ``clock`` counts the work of the threads. A
    thread waits before it decodes an image that would not fit in memory beside those of the other threads, and for its
    turn where there are ``turns``.
    """
    clock = clock or StageClock(workers)
    memory = Memory(decoding_memory(workers))

    def read(path: Path) -> Outcome:
        # An object is asked once, for its bytes: its state counts only where it can't be used.
        size, mtime_ns, _ = NOT_ASKED if is_object(path) else state_of(path)
        with turns.turn() if turns else nullcontext(), memory.room() as room, clock.working(DECODE, 1):
            try:
                image, facts = read_image(path, rules, room)
            except ImageError as error:
                return Failure(error, *((size, mtime_ns) if not is_object(path) else state_of(path)[:2]))
            return facts, prepare(image)

    starts = range(0, len(files), batch_size)
    waiting: deque[tuple[tuple[Path, ...], list[Future[Outcome]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for number in range(len(starts)):
                for start in starts[number + len(waiting) : number + 1 + BATCHES_AHEAD]:
                    ahead = tuple(files[start : start + batch_size])
                    waiting.append((ahead, [pool.submit(read, path) for path in ahead]))
                batch, futures = waiting.popleft()
                outcomes = tuple(future.result() for future in futures)
                if turns:
                    turns.hand_over(len(batch))
                yield FileBatch(batch, outcomes)
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()


def batch_size(settings: ModelSettings, run: BuildSettings) -> int:
    """Return the images of a batch: the number in ``run``, else the model's own for the device.

    On a GPU the model's own number is halved until the batch fits in free memory. Call this once, after loading the
    models.
    """
    on_cpu, on_accelerator = describe_extractor(settings.model).batch_sizes
    device = choose_device(run.device)
    size = run.batch_size
    if size is None and device.type == "cpu":
        size = on_cpu
    elif size is None:
        size = fitting(on_accelerator, working_bytes(settings, device), available_memory(device))
    return min(size, run.segment_rows)


def fitting(most: int, bytes_per_image: int, free: int | None) -> int:
    """Halve ``most`` until a batch of that many images fits in ``free`` bytes, or is one image.

    Unknown numbers (``bytes_per_image`` 0, ``free`` None) set no limit.
    """
    while free is not None and most > 1 and most * bytes_per_image > USABLE * free:
        most //= 2
    return most


def working_bytes(settings: ModelSettings, device: "torch.device") -> int:
    """Estimate the bytes that computing one image takes beside the weights; 0 for a model that was not measured."""
    description = describe_extractor(settings.model)
    side = (settings.image_size or description.image_size) / max(1, description.image_size)
    halved = device.type != "cpu" and settings.dtype != "float32" and not description.float32_vae
    return int(description.working_mb * 1e6 * side**2 * (0.5 if halved else 1))


def decoding_memory(workers: int) -> int:
    """Return the bytes that so many decoding threads may take together for files and pixels: 5 GiB at most."""
    free = available_memory()
    wanted = DECODING_BYTES + min(workers, MAX_WORKERS) * DECODING_BYTES_A_THREAD
    return wanted if free is None else max(LEAST_DECODING_BYTES, min(wanted, free // 2))


def workers(run: BuildSettings) -> int:
    """Return the number of threads that decode images."""
    return run.workers or min(MAX_WORKERS, os.cpu_count() or 1)
