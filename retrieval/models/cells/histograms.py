"""Colour and texture of an image's cells: soft CIE Lab histograms and histograms of uniform local binary patterns.

Batched float32 on any device, cells row by row. A cell's histograms are means over its pixels, so the mean over all
cells is the histogram of the image.

    Lab        ``[images, cells, 180]``   5 x 6 x 6 bins, trilinear
    patterns   ``[images, cells, 34]``    Ojala et al., 2002; 10, 10 and 14 patterns at three radii
"""

import math
from collections.abc import Iterator
from functools import cache
from itertools import pairwise, product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

CELLS_VERSION = 2  # to be raised when a number below, or a rule of retrieval/models/cells/values.py, changes
LAB_BINS = (5, 6, 6)
AB_RANGE = 60.0  # a and b are clipped to [-60, 60], because photographs hardly hold colours beyond
RINGS = ((8, 1.0), (8, 2.0), (12, 3.0))  # (points, radius in pixels)
LAB_SIZE = LAB_BINS[0] * LAB_BINS[1] * LAB_BINS[2]
_LUMA = (0.299, 0.587, 0.114)
_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)


def cell_histograms(pixels: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Describe every cell of ``pixels`` (uint8 ``[images, 3, S, S]``).

    Returns:
        float32 ``[images, cells², 180]``, which sum to 1, and ``[images, cells², 34]``, which sum to 1 for each ring.
    """
    return lab_histograms(to_lab(pixels), cells), lbp_histograms(grey(pixels), cells)


def to_lab(pixels: Tensor) -> Tensor:
    """Convert sRGB ``[images, 3, H, W]`` uint8 to CIE Lab (D65, 2 degrees), float32."""
    levels = torch.arange(256, device=pixels.device) / 255.0
    linear = torch.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92)
    red, green, blue = linear.index_select(0, pixels.flatten().int()).view(pixels.shape).unbind(1)
    xyz = [(r * red + g * green + b * blue) / w for (r, g, b), w in zip(_TO_XYZ, _WHITE, strict=True)]
    x, y, z = (torch.where(c > 0.008856, c.clamp_min(1e-6) ** (1 / 3), 7.787 * c + 16.0 / 116.0) for c in xyz)
    return torch.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], dim=1)


def grey(pixels: Tensor) -> Tensor:
    """Return ITU-R 601 luma of ``[images, 3, H, W]``: float32 ``[images, H, W]``, whole numbers 0 to 255."""
    red, green, blue = pixels.float().unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue).round()


def lab_histograms(lab: Tensor, cells: int) -> Tensor:
    """Return the trilinear histograms of ``[images, 3, S, S]`` by cell: ``[images, cells², 180]``."""
    images, _, size, _ = lab.shape
    unit = [lab[:, 0] / 100.0, *((lab[:, i] / (2 * AB_RANGE) + 0.5).clamp_(0, 1) for i in (1, 2))]
    position = [u.mul_(bins - 1) for u, bins in zip(unit, LAB_BINS, strict=True)]
    corner = [p.int().clamp_(0, bins - 2) for p, bins in zip(position, LAB_BINS, strict=True)]
    fraction = [p.sub_(c) for p, c in zip(position, corner, strict=True)]
    near = [(1 - f, f) for f in fraction]
    first = _cell_of_pixels(images, size, cells, lab.device).mul_(LAB_BINS[0]).add_(corner[0])
    first = first.mul_(LAB_BINS[1]).add_(corner[1]).mul_(LAB_BINS[2]).add_(corner[2]).flatten()
    histogram = torch.zeros(images * cells**2 * LAB_SIZE, device=lab.device)
    for l, a in product((0, 1), repeat=2):  # noqa: E741  # with b: the eight bins around a colour
        share = near[0][l] * near[1][a]
        for b in (0, 1):
            bins = first + ((l * LAB_BINS[1] + a) * LAB_BINS[2] + b)
            histogram.index_add_(0, bins, (share * near[2][b]).flatten())
    return histogram.view(images, cells**2, LAB_SIZE) / _pixels_of_cells(size, cells, lab.device)[:, None]


def lbp_histograms(luma: Tensor, cells: int) -> Tensor:
    """Return the histograms of patterns of ``[images, S, S]`` by cell and ring: ``[images, cells², 34]``."""
    images, size = luma.shape[:2]
    cell = _cell_of_pixels(images, size, cells, luma.device)
    pixels, one = _pixels_of_cells(size, cells, luma.device), torch.ones((), device=luma.device)
    found = []
    for points, radius in RINGS:
        bins = (cell * (points + 2)).add_(uniform_patterns(luma, points, radius)).flatten()
        counts = torch.zeros(images * cells**2 * (points + 2), device=luma.device)
        counts.index_add_(0, bins, one.expand(len(bins)))
        found.append(counts.view(images, cells**2, points + 2) / pixels[:, None])
    return torch.cat(found, dim=-1)


def _cell_of(size: int, cells: int, device: torch.device) -> Tensor:
    """Return each pixel's cell along one axis, int32 ``[size]``; the widths of cells differ by one pixel at most."""
    return torch.arange(size, device=device, dtype=torch.int32) * cells // size


def _cell_of_pixels(images: int, size: int, cells: int, device: torch.device) -> Tensor:
    """Return each pixel's cell, int32 ``[images, size, size]``; the cells of all images are numbered through."""
    line = _cell_of(size, cells, device)
    numbers = cells**2 * torch.arange(images, device=device, dtype=torch.int32)
    return numbers[:, None, None] + (line[:, None] * cells + line)


def _pixels_of_cells(size: int, cells: int, device: torch.device) -> Tensor:
    """Return the number of pixels of each cell, ``[cells²]``."""
    # On a GPU a bincount would wait for all earlier work, because it looks for the largest number.
    inside = (_cell_of(size, cells, device) == torch.arange(cells, device=device)[:, None]).sum(dim=1)
    return (inside[:, None] * inside).flatten()


def uniform_patterns(luma: Tensor, points: int, radius: float) -> Tensor:
    """Return each pixel's pattern: the number of ring points at least as bright, or ``points + 1`` where mixed.

    A pattern is uniform when the ring, read once around, changes between darker and brighter at most twice. Pixels
    outside of the image count as 0. The result is uint8 in the shape of ``luma``, ``[images, H, W]``.
    """
    # A sample's four weights sum to 1 only up to rounding; without the tolerance flat areas would become noise.
    least, margin = luma - 1e-3, int(radius) + 2
    padded = pad(luma, (margin,) * 4)
    brighter = [(sample >= least).view(torch.uint8) for sample in _ring(padded, margin, points, radius)]
    count, changes = brighter[0].clone(), torch.zeros_like(brighter[0])
    for before, after in pairwise(brighter):
        count += after
        changes += before ^ after
    return torch.where(changes <= 2, count, points + 1)


def _ring(padded: Tensor, margin: int, points: int, radius: float) -> Iterator[Tensor]:
    """Yield the brightness at each point around every pixel, bilinear; the next one overwrites the last."""
    height, width = (side - 2 * margin for side in padded.shape[1:])
    weighed = {weight: padded * weight for weight in {w for point in _samples(points, radius) for w, *_ in point}}
    mixed = padded.new_empty(len(padded), height, width)
    for point in _samples(points, radius):
        near = [
            weighed[weight][:, margin + y : margin + y + height, margin + x : margin + x + width]
            for weight, y, x in point
        ]
        if len(near) > 1:
            torch.add(near[0], near[1], out=mixed)
        for each in near[2:]:
            mixed += each
        yield mixed if len(near) > 1 else near[0]


@cache
def _samples(points: int, radius: float) -> tuple[tuple[tuple[float, int, int], ...], ...]:
    """Return for each point of a ring the pixels around it: weight (a float32), rows down, columns right."""
    found = []
    for number in range(points):
        angle = 2 * math.pi * number / points
        y, x = (round(radius * c, 5) for c in (-math.sin(angle), math.cos(angle)))
        top, left = math.floor(y), math.floor(x)
        pixels = []
        for dy, dx in product((0, 1), repeat=2):
            weight = (y - top if dy else top + 1 - y) * (x - left if dx else left + 1 - x)
            if weight > 0:
                pixels.append((float(np.float32(weight)), top + dy, left + dx))
        found.append(tuple(pixels))
    return tuple(found)
