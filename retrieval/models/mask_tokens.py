"""How much of a mask lies on each token: the mask takes the way of the picture, through the extractor's ``prepare``."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retrieval.models.modes import Target
from retrieval.models.protocols import AttentionExtractor, Pixels, SeveralSquares
from retrieval.models.token_grid import TokenGrid

Prepare: TypeAlias = Callable[[Image.Image], Pixels]


def prepare_of(extractor: AttentionExtractor, target: Target) -> Prepare:
    """Return the function from a picture to the pixels ``[height, width, 3]`` that tokens of ``target`` lie on."""
    if isinstance(extractor, SeveralSquares):
        return partial(extractor.square, target=target)
    return extractor.prepare


def token_weights(prepare: Prepare, mask: Image.Image, grid: TokenGrid) -> Tensor:
    """Return how much of a mask lies on each token, float32 ``[tokens]`` in [0, 1]; class tokens get 1.

    Args:
        prepare: of the extractor, see :func:`prepare_of`.
        mask: mode L, laid over the picture that is encoded.
        grid: of that picture.
    """
    pixels = prepare(mask.convert("RGB"))[..., 0]
    cells = _cell_means(pixels.astype(np.float64) / 255, grid.rows, grid.columns)
    weights = torch.ones(grid.tokens)
    weights[grid.before :] = torch.from_numpy(cells.reshape(-1)).float()
    return weights


def _cell_means(values: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """Return the means ``[rows, columns]`` over cells of ``values [height, width]``."""
    means = values
    for axis, count in enumerate((rows, columns)):
        edges = np.linspace(0, values.shape[axis], count + 1).round().astype(int)
        sums = np.add.reduceat(means, edges[:-1], axis=axis)
        means = sums / np.diff(edges).reshape((-1, 1) if axis == 0 else (1, -1))
    return means
