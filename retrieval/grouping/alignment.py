"""Where one picture lies in another: turned or mirrored, larger or smaller, cut out of it or with a border around it.

The middle of one picture is sought in the other at many sizes by normalised cross-correlation (Lewis, 1995), with
products of Fourier transforms. Squares of a few pixels choose the pairs, and larger pictures decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from retrieval.grouping.pictures import SQUARE, Grey

CORE = 0.6  # of both sides: the middle that is sought
SIZES = np.geomspace(0.6, 1.5, 14)  # of one picture in the other, 7 % apart
FINE = np.linspace(0.95, 1.05, 11)  # around the best of these
FINEST = np.linspace(0.994, 1.006, 5)
COARSE = 64  # pixels of the longer side of the pictures that all sizes are tried on
FLAT = 2.0  # grey levels: a standard deviation below that has no structure
SURE = 0.93  # correlation from which the other direction is not looked at
PAIRS_AT_ONCE = 64
SYMMETRIES = ("", "turned left", "turned by 180°", "turned right", "mirrored", "mirrored and turned right",
              "upside down", "mirrored and turned left")  # fmt: skip
"""By the number of a symmetry, how a picture was changed before :func:`turn` with that number makes it upright."""
SAME_WAY = 0.005  # a turned picture must fit better by this: some pictures are symmetric


@dataclass(frozen=True)
class Alignment:
    """The place of picture b in picture a, neither turned: b is enlarged by ``scale`` and moved to ``x``, ``y``."""

    score: float  # of the correlation, 1 at best
    scale: float  # pixels of a for a pixel of b
    x: float  # left edge of b in a, pixels of a
    y: float

    def inverse(self) -> "Alignment":
        """Return the place of a in b."""
        return Alignment(self.score, 1 / self.scale, -self.x / self.scale, -self.y / self.scale)


def turn(picture: Grey, symmetry: int) -> Grey:
    """Return a picture turned left by 90 degrees ``symmetry % 4`` times, then mirrored from 4 on."""
    turned = np.rot90(picture, symmetry % 4, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if symmetry >= 4 else turned)


def whole_fits(first: Grey, second: Grey) -> tuple[Grey, NDArray[np.int64]]:
    """Correlate whole squares, ``[pairs, S, S]`` of mean 0 and length 1, in all eight symmetries of the second.

    Returns:
        The best correlation, float32 ``[pairs]``, and its symmetry, int64 ``[pairs]``.
    """
    each = np.stack([(first * turn(second, symmetry)).sum(axis=(1, 2)) for symmetry in range(8)])
    each[0] += SAME_WAY
    best = each.argmax(axis=0)
    found = each.max(axis=0)
    return (found - SAME_WAY * (best == 0)).astype(np.float32), best


@torch.inference_mode()
def core_fits(first: Grey, second: Grey) -> Grey:
    """Seek the middle of each square of ``second`` in that of ``first``, both ``[pairs, S, S]``.

    Returns:
        The best correlation, float32 ``[pairs]``.
    """
    if not len(first):
        return np.zeros(0, np.float32)
    parts = [
        _core_fits(torch.from_numpy(first[n : n + PAIRS_AT_ONCE]), torch.from_numpy(second[n : n + PAIRS_AT_ONCE]))
        for n in range(0, len(first), PAIRS_AT_ONCE)
    ]
    return torch.cat(parts).numpy()


def _core_fits(first: Tensor, second: Tensor) -> Tensor:
    edge = round(SQUARE * (1 - CORE) / 2)
    core, best = second[:, None, edge : SQUARE - edge, edge : SQUARE - edge], torch.full((len(first),), -1.0)
    spectrum, sums, squares = torch.fft.rfft2(first), _integral(first), _integral(first * first)
    flat = (FLAT / 255) ** 2 / 20
    for size in sorted({round(core.shape[-1] * float(scale)) for scale in SIZES}):
        if size > SQUARE:
            continue
        template = interpolate(core, (size, size), mode="bilinear", align_corners=False, antialias=True)[:, 0]
        template = template - template.mean(dim=(1, 2), keepdim=True)
        length = template.square().sum(dim=(1, 2)).sqrt()
        products = torch.fft.irfft2(spectrum * torch.fft.rfft2(template, s=(SQUARE, SQUARE)).conj(), s=(SQUARE, SQUARE))
        places = SQUARE - size + 1
        variance = (_windows(squares, size) - _windows(sums, size).square() / size**2).clamp_min(0)
        norms = variance.sqrt() * length[:, None, None]
        fits = torch.where((variance > flat) & (length[:, None, None] > 1e-3), products[:, :places, :places] / norms, 0)
        best = torch.maximum(best, fits.flatten(1).amax(dim=1).clamp_max(1))
    return best


def _integral(pictures: Tensor) -> Tensor:
    return torch.nn.functional.pad(pictures.double().cumsum(1).cumsum(2), (1, 0, 1, 0))


def _windows(integral: Tensor, size: int) -> Tensor:
    """Return the sums over all windows of ``size`` pixels a side."""
    high = integral[:, size:] - integral[:, :-size]
    return (high[:, :, size:] - high[:, :, :-size]).float()


def locate(a: Grey, b: Grey, scales: Sequence[float] | NDArray[np.float64]) -> Alignment:
    """Seek the middle of picture ``b`` in picture ``a``, at each of ``scales`` (pixels of a for a pixel of b)."""
    height, width = b.shape
    top, left = int(height * (1 - CORE) / 2), int(width * (1 - CORE) / 2)
    core = Image.fromarray(b[top : height - top, left : width - left])
    canvas = a - a.mean()
    spectrum = np.fft.rfft2(canvas)
    sums, squares = (np.pad(z.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0))) for z in (canvas, canvas**2))
    best = Alignment(-1.0, 1.0, 0.0, 0.0)
    for scale in scales:
        size = (round(core.width * float(scale)), round(core.height * float(scale)))
        if size[0] > a.shape[1] or size[1] > a.shape[0] or min(size) < 8:
            continue
        template = np.asarray(core.resize(size, Image.Resampling.BILINEAR), np.float32)
        fits = _correlation(spectrum, sums, squares, template - template.mean(), a.shape)
        place = int(fits.argmax())
        if float(fits.flat[place]) > best.score:
            y, x = divmod(place, fits.shape[1])
            across, down = size[0] / core.width, size[1] / core.height
            best = Alignment(float(fits.flat[place]), (across * down) ** 0.5, x - left * across, y - top * down)
    return best


def _correlation(
    spectrum: NDArray[np.complex128],
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
    template: Grey,
    shape: tuple[int, ...],
) -> NDArray[np.float64]:
    """Return the normalised correlation at every place of the template; 0 where either has no structure."""
    height, width = template.shape
    length = float(np.sqrt((template**2).sum()))
    places = (shape[0] - height + 1, shape[1] - width + 1)
    if length < FLAT * template.size**0.5:
        return np.zeros(places)
    products = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(template, shape)), shape)[: places[0], : places[1]]

    def inside(integral: NDArray[np.float64]) -> NDArray[np.float64]:
        high = integral[height:] - integral[:-height]
        windows: NDArray[np.float64] = high[:, width:] - high[:, :-width]
        return windows

    variance = np.maximum(inside(squares) - inside(sums) ** 2 / template.size, 0)
    structured = variance > FLAT**2 * template.size
    return np.where(structured, products / np.maximum(np.sqrt(variance) * length, 1e-9), 0.0)


def align(a: Grey, b: Grey) -> Alignment:
    """Return the place of ``b`` in ``a``, neither turned: coarse sizes first, then finer ones around the best."""
    coarse_a, coarse_b = _reduced(a), _reduced(b)
    relative = (max(a.shape) / max(coarse_a.shape)) / (max(b.shape) / max(coarse_b.shape))
    inwards = locate(coarse_a, coarse_b, SIZES)
    outwards = locate(coarse_b, coarse_a, SIZES) if inwards.score < SURE else inwards
    if inwards.score >= outwards.score:
        return _refined(a, b, inwards.scale * relative)
    return _refined(b, a, outwards.scale / relative).inverse()


def _refined(a: Grey, b: Grey, scale: float) -> Alignment:
    found = locate(a, b, scale * FINE)
    return locate(a, b, found.scale * FINEST)


def _reduced(picture: Grey) -> Grey:
    factor = COARSE / max(picture.shape)
    size = (max(8, round(picture.shape[1] * factor)), max(8, round(picture.shape[0] * factor)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX), np.float32)


def fitted(a: Grey, b: Grey) -> Alignment:
    """Return the place of ``b`` over all of ``a``: the alignment of two pictures that show the same cut."""
    return Alignment(1.0, max(a.shape) / max(b.shape), 0.0, 0.0)
