"""Whether the disk can hold what is to be computed, by the bytes of the first batch."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import NoSpaceError


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
