"""Whether the disk can hold what is to be computed, by the bytes of the first batch."""

import shutil
from pathlib import Path

from retrieval.errors import NoSpaceError
from retrieval.models import Stored


def stored_bytes(batch: Stored) -> int:
    """Return the bytes that a batch takes on the disk."""
    tensors = sum(array.nbytes for mode in batch.tensors.values() for array in mode.values())
    return tensors + sum(2 * vectors.size for vectors in batch.vectors.values())


def check_disk(root: Path, bytes_an_image: int, images: int) -> None:
    """Raise NoSpaceError unless the disk can hold ``images`` more; to be asked before anything is stored."""
    needed = bytes_an_image * images
    free = shutil.disk_usage(root).free
    if needed > free:
        raise NoSpaceError(
            f"{root} would grow by {needed / 1e9:.1f} GB ({bytes_an_image / 1e6:.2f} MB an image) and "
            f"{free / 1e9:.1f} GB are free; fill fewer modes (--modes), or let searches compute what they need "
            "(--attention lazy)"
        )
