"""Small pictures of indexed images, read from their files, as grey numbers that alignment compares."""

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index_store.catalog import Item
from index_store.reader import IndexReader
from retrieval.errors import ImageError
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.progress import Cancellation, OnProgress, Progress

SQUARE = 40  # pixels a side of the square that finds candidates, whatever the picture's shape
SIDE = 160  # pixels of the longer side of the picture that decides
KEPT = 512  # pictures in memory
COLOURED = 6.0  # mean distance of a pixel's channels, 0 to 255, above which a picture has colours

Grey = NDArray[np.float32]


@dataclass(frozen=True)
class GreyPicture:
    """One image in grey, 0 to 255, float32 ``[height, width]`` with :data:`SIDE` as the longer side."""

    grey: Grey
    is_coloured: bool


class Pictures:
    """Reads the images of an index; a file that is gone or changed has no picture."""

    def __init__(self, reader: IndexReader, rules: DecodeRules, workers: int) -> None:
        """Take an index, the rules by which its images were read, and a number of decoding threads."""
        self._reader, self._rules, self._workers = reader, rules, workers
        self._kept: OrderedDict[int, GreyPicture | None] = OrderedDict()

    def squares(
        self, rows: NDArray[np.int64], on_progress: OnProgress, cancel: Cancellation | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return grey squares of ``rows``, uint8 ``[rows, SQUARE, SQUARE]``, and which of them could be read."""
        found, there = np.zeros((len(rows), SQUARE, SQUARE), np.uint8), np.zeros(len(rows), bool)
        with ThreadPoolExecutor(self._workers) as threads:
            for number, image in enumerate(threads.map(self._square, self._items(rows))):
                if cancel is not None and cancel.is_requested:
                    threads.shutdown(cancel_futures=True)
                    cancel.check()
                if image is not None:
                    found[number], there[number] = image, True
                on_progress(Progress("pictures", number + 1, len(rows)))
        return found, there

    def _items(self, rows: NDArray[np.int64]) -> Iterator[Item]:
        for start in range(0, len(rows), 4096):
            yield from self._reader.items(rows[start : start + 4096])

    def _square(self, item: Item) -> NDArray[np.uint8] | None:
        image = read_known(item, self._rules, SQUARE)
        if image is None:
            return None
        return np.asarray(image.convert("L").resize((SQUARE, SQUARE), Image.Resampling.BOX, reducing_gap=2.0))

    def of(self, row: int) -> GreyPicture | None:
        """Return the picture of one row; None if its file is gone or changed."""
        if row in self._kept:
            self._kept.move_to_end(row)
            return self._kept[row]
        (item,) = self._reader.items([row])
        image = read_known(item, self._rules, SIDE // 2)
        picture = None if image is None else small(image)
        self._kept[row] = picture
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return picture


def read_known(item: Item, rules: DecodeRules, draft: int | None) -> Image.Image | None:
    """Return an item's image, with its short side at twice ``draft`` or more; None if the file is gone or changed."""
    own = DecodeRules(rules.alpha, draft, rules.max_pixels, rules.colour)
    try:
        image, facts = read_image(Path(item.uri), own)
    except (ImageError, OSError):
        return None
    return image if facts.sha256 == item.sha256 else None


def small(image: Image.Image) -> GreyPicture:
    """Return the picture of an RGB image."""
    factor = SIDE / max(image.size)
    size = (max(8, round(image.width * factor)), max(8, round(image.height * factor)))
    fitted = image.resize(size, Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.BOX)
    return GreyPicture(np.asarray(fitted.convert("L"), np.float32), is_coloured(fitted))


def is_coloured(image: Image.Image) -> bool:
    """Say whether an RGB image has colours."""
    channels = np.asarray(image, np.float32)
    return float((channels.max(axis=2) - channels.min(axis=2)).mean()) > COLOURED


def unit_squares(squares: NDArray[np.uint8] | Grey) -> Grey:
    """Return squares with mean 0 and length 1, float32 ``[squares, SQUARE, SQUARE]``; flat ones are 0."""
    centred = squares.astype(np.float32)
    centred -= centred.mean(axis=(1, 2), keepdims=True)
    lengths = np.linalg.norm(centred, axis=(1, 2), keepdims=True)
    return np.where(lengths > SQUARE, centred / np.maximum(lengths, 1.0), 0.0)
