"""A fixed descriptor of colour and texture: no weights, numpy only, about ten milliseconds an image.

A soft histogram in CIE Lab (5 x 6 x 6 bins) says which colours there are; uniform local binary patterns (Ojala et
al., 2002) at three radii say how neighbouring pixels differ. The vector is the square root of both, so that its
inner product is a Bhattacharyya coefficient.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from retrieval.backbones import Description, Pixels
from retrieval.images import resize_square

SIZE = 144  # pixels a side
LAB_BINS = (5, 6, 6)
AB_RANGE = 60.0  # a and b are clipped to [-60, 60]: beyond lie colours that photographs hardly hold
RINGS = ((8, 1.0), (8, 2.0), (12, 3.0))  # (points, radius in pixels)
LBP_WEIGHT = 0.3
FLOOR = 1e-6  # keeps the square root's slope finite at empty bins

Floats = NDArray[np.float32]


def load(description: Description, folder: Path | None, device: torch.device, offline: bool) -> "Descriptor":
    """Return the descriptor; it has no weights, so every argument is passed over."""
    return Descriptor()


class Descriptor:
    """An Embedder; vectors have 180 + 34 entries."""

    def prepare(self, image: Image.Image) -> Pixels:
        """Return ``[144, 144, 3]``."""
        return resize_square(image, SIZE)

    def embed(self, pixels: Pixels) -> Floats:
        """Return float32 ``[images, 214]``, rows of norm 1."""
        return np.stack([describe(image) for image in pixels])

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.backbones.Embedder`; the version rises when a number above changes."""
        return {"name": "descriptor", "version": 1}


def describe(rgb: Pixels) -> Floats:
    """Return the descriptor of one image ``[H, W, 3]``: float32 ``[214]`` of norm 1."""
    parts = np.concatenate([lab_histogram(rgb), LBP_WEIGHT * lbp_histogram(grey(rgb))])
    vector = np.sqrt(parts + FLOOR)
    normalised: Floats = (vector / np.linalg.norm(vector)).astype(np.float32)
    return normalised


def lab_histogram(rgb: Pixels) -> NDArray[np.float64]:
    """Return the trilinear Lab histogram of ``[H, W, 3]``: float64 ``[180]``, summing to 1."""
    lab = to_lab(rgb).reshape(-1, 3)
    scaled = np.stack([lab[:, 0] / 100.0, *(np.clip(lab[:, i] / (2 * AB_RANGE) + 0.5, 0, 1) for i in (1, 2))], axis=1)
    position = scaled * (np.array(LAB_BINS) - 1)
    corner = np.minimum(position.astype(np.int64), np.array(LAB_BINS) - 2)
    fraction = position - corner
    histogram = np.zeros(np.prod(LAB_BINS))
    for step in product((0, 1), repeat=3):
        weight = np.prod(np.where(step, fraction, 1.0 - fraction), axis=1)
        bins = np.ravel_multi_index(tuple((corner + step).T), LAB_BINS)
        histogram += np.bincount(bins, weight, minlength=histogram.size)
    return histogram / len(lab)


def lbp_histogram(grey_image: Floats) -> NDArray[np.float64]:
    """Return the histograms of uniform local binary patterns of ``[H, W]``: float64 ``[34]``, 1 a ring in sum."""
    histograms = []
    for points, radius in RINGS:
        codes = uniform_patterns(grey_image, points, radius)
        histograms.append(np.bincount(codes.ravel(), minlength=points + 2) / codes.size)
    return np.concatenate(histograms)


def uniform_patterns(grey_image: Floats, points: int, radius: float) -> NDArray[np.int64]:
    """Return each pixel's pattern: the number of ring points at least as bright, or ``points + 1`` where mixed.

    A pattern is uniform when the ring changes between darker and brighter at most twice. Outside the image is 0.
    """
    brighter = np.stack(list(_ring(grey_image, points, radius)))
    changes = (brighter[1:] != brighter[:-1]).sum(axis=0)
    codes: NDArray[np.int64] = np.where(changes <= 2, brighter.sum(axis=0), points + 1)
    return codes


def _ring(image: Floats, points: int, radius: float) -> Iterator[NDArray[np.bool_]]:
    height, width = image.shape
    margin = int(np.ceil(radius)) + 1
    padded = np.pad(image, margin)
    for angle in 2 * np.pi * np.arange(points) / points:
        y, x = (round(float(o), 5) for o in (-radius * np.sin(angle), radius * np.cos(angle)))
        top, left = int(np.floor(y)), int(np.floor(x))
        sample = np.zeros_like(image)
        for dy, dx in product((0, 1), repeat=2):
            weight = (y - top if dy else top + 1 - y) * (x - left if dx else left + 1 - x)
            if weight > 0:
                rows, columns = margin + top + dy, margin + left + dx
                sample += np.float32(weight) * padded[rows : rows + height, columns : columns + width]
        # The four weights sum to 1 only up to rounding: without the tolerance flat areas would be noise.
        yield sample >= image - 1e-3


def grey(rgb: Pixels) -> Floats:
    """Return ITU-R 601 luma of ``[H, W, 3]``: float32 ``[H, W]``, whole numbers 0 to 255."""
    luma: Floats = np.rint(rgb @ np.array([0.299, 0.587, 0.114])).astype(np.float32)
    return luma


def to_lab(rgb: Pixels) -> NDArray[np.float64]:
    """Convert sRGB ``[..., 3]`` uint8 to CIE Lab (D65, 2 degrees), float64."""
    levels = np.arange(256) / 255.0
    linear = np.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92)
    to_xyz = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    xyz = linear[rgb] @ (to_xyz / np.array([[0.95047], [1.0], [1.08883]])).T
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16.0 / 116.0)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)
