"""Regions of a picture to search with: a box, or a mask that weighs pixels."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import UsageError
from retrieval.types import Fractions

SLACK = 1e-6  # of a picture's side: rounding in a box's numbers is forgiven


@dataclass(frozen=True)
class Box:
    """A rectangle of a picture as people see it, upright: its left top corner and its size.

    The numbers are fractions of the picture's sides if all four are at most 1, otherwise pixels.

    Raises:
        UsageError: a number is not finite or below 0, or a side is 0.
    """

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(number) and number >= 0 for number in self._numbers) or 0 in self._numbers[2:]:
            raise UsageError(f"a box needs x and y of 0 or more and sides above 0, not {self}")

    @property
    def _numbers(self) -> Fractions:
        return self.x, self.y, self.width, self.height

    def __str__(self) -> str:
        return ",".join(f"{number:g}" for number in self._numbers)

    def of(self, width: int, height: int, name: str) -> Fractions:
        """Return x, y, width and height as fractions of a picture of so many pixels, which messages call ``name``.

        Raises:
            UsageError: the box does not lie inside the picture.
        """
        x, y, w, h = self._fractions((width, height))
        if max(x + w, y + h) > 1 + SLACK:
            raise UsageError(f"the box {self} does not lie inside {name}, which has {width} x {height} px")
        return x, y, min(w, 1 - x), min(h, 1 - y)

    def short_side(self, size: tuple[int, int]) -> float:
        """Return the pixels of the box's short side in a picture of (width, height) px."""
        _, _, w, h = self._fractions(size)
        return min(w * size[0], h * size[1])

    def _fractions(self, size: tuple[int, int]) -> Fractions:
        sides = (*size, *size) if max(self._numbers) > 1 else (1, 1, 1, 1)
        x, y, w, h = (number / side for number, side in zip(self._numbers, sides, strict=True))
        return x, y, w, h


@dataclass(frozen=True, eq=False)
class Mask:
    """A picture of any size that is laid over the whole query: white counts, black doesn't, grey counts in part."""

    image: Any  # a ``retrieval.search.queries.picture.ImageInput``, or an array ``[H, W]`` of uint8 or bool


@dataclass(frozen=True)
class Subject:
    """The subject of the query, where the model of the index sees it; see :mod:`retrieval.scoring.subject`."""


RegionInput = Box | Mask | Subject | None
"""The part of an image that asks; None: the whole image."""


@dataclass(frozen=True, eq=False)
class Region:
    """The part of a picture that was cut out of it to search with."""

    box: Fractions  # of the whole picture
    mask: Image.Image | None = None  # mode L, over the cut-out; None: all of it counts alike
    is_mask: bool = False  # whether a mask was given; one that is white all over its box leaves no ``mask``
    mask_path: str | None = None  # absolute; None: the mask did not come from a file
    is_subject: bool = False  # whether the model chose the box

    def about(self) -> dict[str, Any]:
        """Return what results say about the region, as JSON values; ``box`` has fractions of the picture."""
        about: dict[str, Any] = {"box": [round(number, 6) for number in self.box]}
        if self.is_subject:
            about["subject"] = True
        return {**about, "mask": self.mask_path} if self.is_mask else about


def pixels_of(box: Fractions, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the left, top, right and bottom pixels of a box in a picture of (width, height): 1 x 1 px at least."""
    found = []
    for start, length, side in zip(box[:2], box[2:], size, strict=True):
        first = min(round(start * side), side - 1)
        found.append((first, min(side, max(round((start + length) * side), first + 1))))
    (left, right), (top, bottom) = found
    return left, top, right, bottom


def box_of_mask(mask: NDArray[np.uint8], least: int) -> Fractions | None:
    """Return the smallest box, as fractions, around pixels ``[H, W]`` of at least ``least``; None: there are none."""
    rows, columns = (np.flatnonzero((mask >= least).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    height, width = mask.shape
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return left / width, top / height, (right - left) / width, (bottom - top) / height
