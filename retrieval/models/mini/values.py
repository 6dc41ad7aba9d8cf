"""From the maps of an image to the queries, keys and values of a mode, as pure functions in float32.

Maps are ``[images, tokens, channels]``. An ``object`` map is the network's last stage. A ``surface`` map has four
blocks side by side: stage 6, stage 4, and the roots of the cells' histograms of colour and of texture.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from retrieval.models.cells.histograms import LAB_SIZE, RINGS

MINI_VERSION = 1  # to be raised when a rule or a number of this folder changes
OBJECT_WIDTH = 320
LBP_SIZE = sum(points + 2 for points, _ in RINGS)
SURFACE_WIDTHS = (192, 80, LAB_SIZE, LBP_SIZE)  # stage 6, stage 4, colour, texture
HISTOGRAMS_FROM = SURFACE_WIDTHS[0] + SURFACE_WIDTHS[1]  # the first channel of the histograms
SURFACE_WEIGHTS = (0.5, 1.0, 0.25, 0.25)  # a block's share of the inner products of values
MATCHED = 2  # the leading blocks that queries and keys are made of


def queries(features: Tensor, sharpness: float) -> Tensor:
    """Return queries (and keys) with logits ``q·k / sqrt(d)`` of ``sharpness`` times the cosine of two tokens."""
    found: Tensor = normalize(features, dim=-1) * math.sqrt(sharpness * math.sqrt(features.shape[-1]))
    return found


def one_size(values: Tensor) -> Tensor:
    """Scale each image's ``[tokens, channels]`` to norm 1; no score changes, and every codec can hold the numbers."""
    sizes: Tensor = values.flatten(1).norm(dim=1).clamp_min(1e-12)
    return values / sizes[:, None, None]


def emphasised(features: Tensor) -> Tensor:
    """Return ``|f| f``: a token counts by its squared norm, which is large where the network sees an object."""
    return one_size(features * features.norm(dim=-1, keepdim=True))


def surface_blocks(surface: Tensor, widths: tuple[int, ...], centre: Tensor) -> list[Tensor]:
    """Split a surface map, take the mean roots ``centre`` from the histograms, and give each block norm 1."""
    first = surface.shape[-1] - len(centre)
    moved = torch.cat([surface[..., :first], surface[..., first:] - centre], dim=-1)
    return [one_size(block) for block in torch.split(moved, list(widths), dim=-1)]
