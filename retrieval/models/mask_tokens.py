"""Where an extractor's tokens lie in a picture: found by sending pictures of known values through its ``prepare``.

Tokens of patches form a grid over the prepared pixels, row by row. Tokens before them, such as a class token, belong to
the whole picture.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retrieval.models.modes import Target
from retrieval.models.protocols import AttentionExtractor, Pixels, SeveralSquares
from retrieval.types import Fractions

Prepare: TypeAlias = Callable[[Image.Image], Pixels]

RAMP_PX = 256  # longer side of the picture that finds out which part of a candidate the grid covers
LEAST_PX = 16  # shorter side of it


def prepare_of(extractor: AttentionExtractor, target: Target) -> Prepare:
    """Return the function from a picture to the pixels ``[height, width, 3]`` that tokens of ``target`` lie on."""
    if isinstance(extractor, SeveralSquares):
        several = extractor
        return lambda image: several.square_of(several.prepare(image), target)
    return extractor.prepare


def grid_of(height: int, width: int, tokens: int) -> tuple[int, int]:
    """Return the rows and columns of the finest grid of squares over so many pixels with ``tokens`` cells at most."""
    for side in range(1, max(height, width) + 1):
        rows, columns = max(1, height // side), max(1, width // side)
        if rows * columns <= tokens:
            return rows, columns
    return 1, 1


def token_weights(prepare: Prepare, mask: Image.Image, tokens: int) -> Tensor:
    """Return how much of a mask lies on each token, float32 ``[tokens]`` in [0, 1]; class tokens get 1.

    Args:
        prepare: of the extractor, see :func:`prepare_of`.
        mask: mode L, laid over the picture that is encoded.
        tokens: of that picture.
    """
    pixels = prepare(mask.convert("RGB"))[..., 0]
    cells = _cell_means(pixels.astype(np.float64) / 255, *grid_of(pixels.shape[0], pixels.shape[1], tokens))
    weights = torch.ones(tokens)
    weights[tokens - cells.size :] = torch.from_numpy(cells.reshape(-1)).float()
    return weights


def as_grid(prepare: Prepare, values: Tensor) -> Tensor:
    """Return ``values [tokens]`` of one picture as ``[rows, columns]``, without those of class tokens."""
    height, width, _ = prepare(Image.new("RGB", (LEAST_PX, LEAST_PX))).shape
    rows, columns = grid_of(height, width, len(values))
    return values[len(values) - rows * columns :].reshape(rows, columns)


def in_picture(box: Fractions, covered: Fractions) -> Fractions:
    """Return a box of the grid as fractions of the picture, of which the grid covers the box ``covered``."""
    x, y = covered[0] + box[0] * covered[2], covered[1] + box[1] * covered[3]
    right, bottom = x + box[2] * covered[2], y + box[3] * covered[3]
    x, y, right, bottom = (min(max(edge, 0.0), 1.0) for edge in (x, y, right, bottom))
    return x, y, right - x, bottom - y


def covered_part(prepare: Prepare, width: int, height: int) -> Fractions:
    """Return the box of a picture of so many pixels that its tokens lie on; a centre crop leaves edges out."""
    scale = RAMP_PX / max(width, height)
    size = max(LEAST_PX, round(width * scale)), max(LEAST_PX, round(height * scale))
    pixels = prepare(_ramps(*size)).astype(np.float64)
    # Blue is 255 inside the picture; the black around a crop that is larger than the picture counts as nothing.
    weights = np.maximum(pixels[..., 2], 1e-9)
    across = _spread((pixels[..., 0] * weights).sum(axis=0) / weights.sum(axis=0) / 255)
    down = _spread((pixels[..., 1] * weights).sum(axis=1) / weights.sum(axis=1) / 255)
    return across[0], down[0], across[1], down[1]


@lru_cache(64)
def _ramps(width: int, height: int) -> Image.Image:
    """Draw a picture whose red tells the fraction of x, and whose green that of y."""
    drawn = np.full((height, width, 3), 255.0)
    drawn[..., 0] *= ((np.arange(width) + 0.5) / width)[None, :]
    drawn[..., 1] *= ((np.arange(height) + 0.5) / height)[:, None]
    return Image.fromarray(drawn.round().astype(np.uint8))


def _spread(places: NDArray[np.float64]) -> tuple[float, float]:
    """Return where a line of pixels begins and its length, from the fraction at the centre of each pixel."""
    inner = places[len(places) // 8 : len(places) - len(places) // 8]  # filters bend the ends
    step = (inner[-1] - inner[0]) / max(1, len(inner) - 1)
    first = places[len(places) // 2] - step * (len(places) // 2 + 0.5)
    return float(first), float(step * len(places))


def _cell_means(values: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """Return the means ``[rows, columns]`` over cells of ``values [height, width]``."""
    means = values
    for axis, count in enumerate((rows, columns)):
        edges = np.linspace(0, values.shape[axis], count + 1).round().astype(int)
        sums = np.add.reduceat(means, edges[:-1], axis=axis)
        means = sums / np.diff(edges).reshape((-1, 1) if axis == 0 else (1, -1))
    return means
