"""Colour and texture of an image's cells: soft CIE Lab histograms and histograms of uniform local binary patterns.

Batched float32 on any device, cells row by row. A cell's histograms are means over its pixels, so the mean over all
cells is the histogram of the image.

    Lab        ``[images, cells, 180]``   5 x 6 x 6 bins, trilinear
    patterns   ``[images, cells, 34]``    Ojala et al., 2002; 10, 10 and 14 patterns at three radii
"""

from itertools import pairwise, product

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
    linear = torch.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92)[pixels.long()]
    red, green, blue = linear.unbind(1)
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
    unit = [lab[:, 0] / 100.0, *((lab[:, i] / (2 * AB_RANGE) + 0.5).clamp(0, 1) for i in (1, 2))]
    position = [u * (bins - 1) for u, bins in zip(unit, LAB_BINS, strict=True)]
    corner = [p.long().clamp(0, bins - 2) for p, bins in zip(position, LAB_BINS, strict=True)]
    fraction = [p - c for p, c in zip(position, corner, strict=True)]
    line = _cell_of(size, cells, lab.device)
    cell = line[:, None] * cells + line
    # Pixels by cell. On a GPU a bincount would wait for all earlier work, because it looks for the largest number.
    members = (line == torch.arange(cells, device=lab.device)[:, None]).sum(dim=1)
    pixels = (members[:, None] * members).flatten()
    cell = cell + cells**2 * torch.arange(images, device=lab.device)[:, None, None]
    first = ((cell * LAB_BINS[0] + corner[0]) * LAB_BINS[1] + corner[1]) * LAB_BINS[2] + corner[2]
    histogram = torch.zeros(images * cells**2 * LAB_SIZE, device=lab.device)
    for l, a, b in product((0, 1), repeat=3):  # noqa: E741  # the eight bins around a colour
        near = [f if step else 1 - f for f, step in zip(fraction, (l, a, b), strict=True)]
        bins = first + (l * LAB_BINS[1] + a) * LAB_BINS[2] + b
        histogram.index_add_(0, bins.flatten(), (near[0] * near[1] * near[2]).flatten())
    return histogram.view(images, cells**2, LAB_SIZE) / pixels[:, None]


def lbp_histograms(luma: Tensor, cells: int) -> Tensor:
    """Return the histograms of patterns of ``[images, S, S]`` by cell and ring: ``[images, cells², 34]``."""
    line = _cell_of(luma.shape[-1], cells, luma.device)
    member = (line == torch.arange(cells, device=luma.device)[:, None]).float()
    mean, found = member / member.sum(dim=1, keepdim=True), []
    for points, radius in RINGS:
        codes = uniform_patterns(luma, points, radius)
        # One pattern after the other, because a one-hot tensor of all would take ten times the image.
        shares = [(mean @ (codes == code).float() @ mean.T).flatten(1) for code in range(points + 2)]
        found.append(torch.stack(shares, dim=-1))
    return torch.cat(found, dim=-1)


def _cell_of(size: int, cells: int, device: torch.device) -> Tensor:
    """Return each pixel's cell along one axis, int64 ``[size]``; the widths of cells differ by one pixel at most."""
    return torch.arange(size, device=device) * cells // size


def uniform_patterns(luma: Tensor, points: int, radius: float) -> Tensor:
    """Return each pixel's pattern: the number of ring points at least as bright, or ``points + 1`` where mixed.

    A pattern is uniform when the ring, read once around, changes between darker and brighter at most twice. Pixels
    outside of the image count as 0. The result is uint8 in the shape of ``luma``, ``[images, H, W]``.
    """
    # A sample's four weights sum to 1 only up to rounding; without the tolerance flat areas would become noise.
    brighter = [sample >= luma - 1e-3 for sample in _ring(luma, points, radius)]
    count, changes = (torch.zeros_like(luma, dtype=torch.uint8) for _ in range(2))
    for bit in brighter:
        count += bit
    for before, after in pairwise(brighter):
        changes += before != after
    return torch.where(changes <= 2, count, points + 1)


def _ring(luma: Tensor, points: int, radius: float) -> list[Tensor]:
    height, width = luma.shape[1:]
    margin = int(radius) + 2
    padded = pad(luma, (margin,) * 4)
    angles = 2 * torch.pi * torch.arange(points, dtype=torch.float64) / points
    samples = []
    for angle in angles:
        y, x = (round(float(radius * c), 5) for c in (-angle.sin(), angle.cos()))
        top, left = int(y // 1), int(x // 1)
        sample = torch.zeros_like(luma)
        for dy, dx in product((0, 1), repeat=2):
            weight = (y - top if dy else top + 1 - y) * (x - left if dx else left + 1 - x)
            if weight > 0:
                rows, columns = margin + top + dy, margin + left + dx
                sample += weight * padded[:, rows : rows + height, columns : columns + width]
        samples.append(sample)
    return samples
