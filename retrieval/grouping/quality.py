"""How good a copy is: the pixels that carry detail, whatever the file claims, and colours."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from index_store.catalog import Item
from retrieval.grouping.pictures import is_coloured, read_known
from retrieval.images.decoding import DecodeRules

DRAFT = 512  # px: sharpness is measured on a picture whose short side is twice that, or on the whole one
LOST = 0.02  # of a picture's contrast: detail that shrinking may lose unseen
SCALES = (0.125, 0.177, 0.25, 0.354, 0.5, 0.595, 0.707, 0.841)


@dataclass(frozen=True)
class ImageQuality:
    """One image's own worth. ``sharpness`` is the scale, up to 1, to which it can shrink without loss of detail."""

    pixels: int
    sharpness: float | None  # None: the file is gone or changed
    is_coloured: bool | None
    file_bytes: int

    @property
    def detail(self) -> float:
        """The pixels that carry detail; without a file all of them."""
        return self.pixels * (1.0 if self.sharpness is None else self.sharpness) ** 2


def measure_quality(item: Item, rules: DecodeRules) -> ImageQuality:
    """Measure one item from its file; without the file only the catalogue speaks."""
    image, pixels = read_known(item, rules, DRAFT), item.width * item.height
    if image is None:
        return ImageQuality(pixels, None, None, item.size)
    small = image.resize((64, 64), Image.Resampling.BOX)
    return ImageQuality(pixels, sharpness(image), is_coloured(small), item.size)


def sharpness(image: Image.Image) -> float:
    """Return the smallest scale, of :data:`SCALES` or 1, at which an RGB image keeps its detail.

    A picture that was enlarged shrinks to its true size without a loss, so it cannot pass for the larger one.
    """
    grey = image.convert("L")
    whole = np.asarray(grey, np.float32)
    contrast = float(whole.std())
    if contrast < 1.0:
        return 1.0
    for scale in SCALES:
        size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
        shrunk = grey.resize(size, Image.Resampling.LANCZOS).resize(grey.size, Image.Resampling.BICUBIC)
        if float(np.sqrt(np.square(np.asarray(shrunk, np.float32) - whole).mean())) <= LOST * contrast:
            return scale
    return 1.0
