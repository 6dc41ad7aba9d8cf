"""From the maps of an image to the queries, keys and values of a mode, as pure functions in float32.

Maps are ``[images, tokens, channels]``. An ``object`` map is the network's last stage. A ``surface`` map has four
blocks side by side: stage 6, stage 4, and the roots of the cells' histograms of colour and of texture.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.linalg import vector_norm

from retrieval.models.cells.histograms import LAB_SIZE, RINGS

MINI_VERSION = 1  # to be raised when a rule or a number of this folder changes
OBJECT_WIDTH = 320
LBP_SIZE = sum(points + 2 for points, _ in RINGS)
SURFACE_WIDTHS = (192, 80, LAB_SIZE, LBP_SIZE)  # stage 6, stage 4, colour, texture
HISTOGRAMS_FROM = SURFACE_WIDTHS[0] + SURFACE_WIDTHS[1]  # the first channel of the histograms
SURFACE_WEIGHTS = (0.5, 1.0, 0.25, 0.25)  # a block's share of the inner products of values
TINY = 1e-12  # the least norm that is divided by, as in torch's normalize
MATCHED = 2  # the leading blocks that queries and keys are made of


def queries(features: Tensor, sharpness: float) -> Tensor:
    """Return queries (and keys) with logits ``q·k / sqrt(d)`` of ``sharpness`` times the cosine of two tokens."""
    return features * (length_of_queries(sharpness, features.shape[-1]) / norms_of(features).clamp_min(TINY))


def length_of_queries(sharpness: float, width: int) -> float:
    """Return the norm of each token of :func:`queries` of ``width`` channels."""
    return math.sqrt(sharpness * math.sqrt(width))


def emphasised(features: Tensor) -> Tensor:
    """Return ``|f| f``, of norm 1 in each image: a token counts by its squared norm, large where there is an object.

    No score changes with the norm, and every codec can hold the numbers.
    """
    norms = norms_of(features)
    sizes = vector_norm(norms.square(), dim=1, keepdim=True).clamp_min(TINY)
    found: Tensor = features * (norms / sizes)
    return found


def norms_of(block: Tensor) -> Tensor:
    """Return the norm of each token, ``[images, tokens, 1]``."""
    found: Tensor = vector_norm(block, dim=-1, keepdim=True)
    return found


def surface_values(blocks: Sequence[Tensor], norms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the blocks side by side, each of norm 1 in an image times the root of its weight.

    Args:
        blocks: ``[images, tokens, channels]`` each.
        norms: :func:`norms_of` each.
        weights: one each.
    """
    values = blocks[0].new_empty((*blocks[0].shape[:2], sum(block.shape[-1] for block in blocks)))
    places = torch.split(values, [block.shape[-1] for block in blocks], dim=-1)
    for block, norm, weight, place in zip(blocks, norms, weights, places, strict=True):
        size = vector_norm(norm, dim=1, keepdim=True).clamp_min(TINY)
        torch.mul(block, weight**0.5 / size, out=place)
    return values


def surface_queries(blocks: Sequence[Tensor], norms: Sequence[Tensor], sharpness: float) -> Tensor:
    """Return :func:`queries` of the ``blocks`` side by side, of which each token has norm 1 in each block.

    Written into place: a search decodes megabytes of tokens, and each copy of them would take as long as the sums.
    """
    widths = [block.shape[-1] for block in blocks]
    found = blocks[0].new_empty((*blocks[0].shape[:2], sum(widths)))
    scales = [1 / norm.clamp_min(TINY) for norm in norms]
    lengths = torch.stack([(norm * scale).square() for norm, scale in zip(norms, scales, strict=True)]).sum(0).sqrt()
    whole = length_of_queries(sharpness, sum(widths)) / lengths.clamp_min(TINY)
    for block, scale, place in zip(blocks, scales, torch.split(found, widths, dim=-1), strict=True):
        torch.mul(block, whole * scale, out=place)
    return found


def surface_blocks(surface: Tensor, widths: Sequence[int], centre: Tensor) -> list[Tensor]:
    """Split a surface map into its blocks, and take the mean roots ``centre`` from the histograms."""
    first = surface.shape[-1] - len(centre)
    starts = [0, *accumulate(widths)]
    return [
        block if start < first else block - centre[start - first :][: block.shape[-1]]
        for start, block in zip(starts, torch.split(surface, list(widths), dim=-1), strict=False)
    ]
