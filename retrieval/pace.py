"""How a build runs on this machine: images a batch, decoding threads, and whether the disk can hold the result."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.backbones import describe_extractor
from retrieval.device import choose_device
from retrieval.errors import NoSpaceError
from retrieval.settings import BuildSettings

MAX_WORKERS = 8


def batch_size(model: str, run: BuildSettings) -> int:
    """Return how many images a batch has: as asked, else the model's own for the device."""
    on_cpu, on_accelerator = describe_extractor(model).batch_sizes
    own = on_cpu if choose_device(run.device).type == "cpu" else on_accelerator
    return min(run.batch_size or own, run.segment_rows)


def workers(run: BuildSettings) -> int:
    """Return how many threads decode images."""
    return run.workers or min(MAX_WORKERS, os.cpu_count() or 1)


def stored_bytes(
    vectors: Mapping[str, NDArray[np.float32]], tensors: Mapping[str, Mapping[str, NDArray[np.float16]]]
) -> int:
    """Return the bytes that a batch takes on the disk."""
    return sum(array.nbytes for mode in tensors.values() for array in mode.values()) + sum(
        2 * array.size for array in vectors.values()
    )


def check_disk(root: Path, bytes_an_image: int, images: int) -> None:
    """Raise NoSpaceError unless the disk can hold ``images`` more; to be asked before anything is stored."""
    needed = bytes_an_image * images
    free = shutil.disk_usage(root).free
    if needed > free:
        raise NoSpaceError(
            f"{root} would grow by {needed / 1e9:.1f} GB ({bytes_an_image / 1e6:.2f} MB an image) and "
            f"{free / 1e9:.1f} GB are free; build fewer modes (--modes), or one branch (--branches cond), "
            "or let searches compute what they need (--attention lazy), or name another disk (--index)"
        )
