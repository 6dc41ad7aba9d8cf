"""Read and resize image files in threads, batch after batch, a bounded number of batches ahead of the models."""

import os
from typing import TYPE_CHECKING

from retrieval.devices.memory import available_memory
from retrieval.devices.selection import choose_device
from retrieval.models.registry import describe_extractor
from retrieval.settings import BuildSettings, ModelSettings

if TYPE_CHECKING:
    import torch

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from retrieval.encoding.loaded_models import ModelInputs
from retrieval.encoding.timing import DECODE, StageClock
from retrieval.errors import ImageError
from retrieval.images.decoding import DecodeRules, FileFacts, read_image
from retrieval.images.discovery import state_of

MAX_WORKERS = 8
USABLE = 0.8  # of the free memory: what a batch takes is known about, and an allocator leaves gaps


BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Failure:
    """Why an image can't be used, and its file's state before it was read: it may be whole a moment later."""

    error: ImageError
    size: int  # bytes; -1: unknown
    mtime_ns: int  # -1: unknown


Outcome = tuple[FileFacts, ModelInputs] | Failure


@dataclass(frozen=True)
class FileBatch:
    """One batch of the plan: the files asked for and, in their order, what became of each."""

    files: tuple[Path, ...]
    outcomes: tuple[Outcome, ...]


def read_batches(
    files: Sequence[Path],
    batch_size: int,
    workers: int,
    rules: DecodeRules,
    prepare: Callable[[Image.Image], ModelInputs],
    clock: StageClock | None = None,
) -> Generator[FileBatch, None, None]:
    """Yield ``files`` in order, ``batch_size`` a batch, decoded and prepared.

    Batches are cut by position in ``files``, rejects included, so that a resumed build sees the batches that an
    uninterrupted one would have seen. An image that can't be used is a Failure among the outcomes. ``clock`` counts
    the work of the threads that decode.
    """
    clock = clock or StageClock(workers)

    def load(path: Path) -> Outcome:
        size, mtime_ns = state_of(path)
        with clock.working(DECODE, 1):
            try:
                image, facts = read_image(path, rules)
            except ImageError as error:
                return Failure(error, size, mtime_ns)
            return facts, prepare(image)

    starts = range(0, len(files), batch_size)
    waiting: deque[tuple[tuple[Path, ...], list[Future[Outcome]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for number in range(len(starts)):
                for start in starts[number + len(waiting) : number + 1 + BATCHES_AHEAD]:
                    ahead = tuple(files[start : start + batch_size])
                    waiting.append((ahead, [pool.submit(load, path) for path in ahead]))
                chunk, futures = waiting.popleft()
                yield FileBatch(chunk, tuple(future.result() for future in futures))
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()


def batch_size(settings: ModelSettings, run: BuildSettings) -> int:
    """Return how many images a batch has: as asked, else the model's own for the device, else what fits.

    On an accelerator the model's own is halved until the batch fits into the free memory, so ask once the models are
    loaded, and only once: another program may take memory meanwhile.
    """
    on_cpu, on_accelerator = describe_extractor(settings.model).batch_sizes
    device = choose_device(run.device)
    own = run.batch_size
    if own is None and device.type == "cpu":
        own = on_cpu
    elif own is None:
        own = fitting(on_accelerator, working_bytes(settings, device), available_memory(device))
    return min(own, run.segment_rows)


def fitting(most: int, an_image: int, free: int | None) -> int:
    """Return ``most``, or half of it and so on, so that so many images of ``an_image`` bytes fit; at least 1.

    What is not known (0 or None) is no limit.
    """
    while free is not None and most > 1 and most * an_image > USABLE * free:
        most //= 2
    return most


def working_bytes(settings: ModelSettings, device: "torch.device") -> int:
    """Return what computing one image takes beside the weights, about; 0 where it was never measured."""
    description = describe_extractor(settings.model)
    side = (settings.image_size or description.image_size) / max(1, description.image_size)
    halved = device.type != "cpu" and settings.dtype != "float32" and not description.float32_vae
    return int(description.working_mb * 1e6 * side**2 * (0.5 if halved else 1))


def workers(run: BuildSettings) -> int:
    """Return how many threads decode images."""
    return run.workers or min(MAX_WORKERS, os.cpu_count() or 1)
