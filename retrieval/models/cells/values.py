"""From cell histograms to the values, queries and keys of a mode, as pure functions in float32."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from retrieval.models.modes import CellValues

GRID = 6  # cells a side; each cell is a token
FLOOR = 1e-5  # keeps the square root's slope finite at empty bins
MATCH_PATTERNS = 0.3  # weight of texture where cells are compared with each other
NEAREST = 2  # a background cell resembles this many cells of a side ...
SIDES = 3  # ... on this many of the four sides: a subject may touch one of them


def roots(histograms: Tensor) -> Tensor:
    """Return ``sqrt(h + floor)``, normalised along the last axis: inner products are Bhattacharyya coefficients."""
    return normalize((histograms + FLOOR).sqrt(), dim=-1)


def match_features(histograms: Tensor, sharpness: float) -> Tensor:
    """Return queries (and keys) with logits ``q·k / sqrt(d)`` of ``sharpness`` times the cells' likeness.

    Args:
        histograms: cells with texture weighted :data:`MATCH_PATTERNS`, ``[images, tokens, d]``.
        sharpness: with 0, every cell attends to all cells equally.
    """
    return roots(histograms) * math.sqrt(sharpness * math.sqrt(histograms.shape[-1]))


def border_contrast(histograms: Tensor, power: float) -> Tensor:
    """Return each cell's difference from the border, ``(1 - likeness)^power``: ``[images, tokens]`` of mean 1.

    A cell's likeness to a side is its mean likeness to the :data:`NEAREST` most similar cells there. Its likeness to
    the border is the mean over the :data:`SIDES` most similar sides. The position of a cell does not matter, so a
    subject counts as much off centre, or at one side, as in the middle.
    """
    found = roots(histograms)
    side = math.isqrt(histograms.shape[1])
    grid = torch.arange(side * side, device=found.device).view(side, side)
    border = torch.cat([grid[0], grid[-1], grid[:, 0], grid[:, -1]])
    likeness = (found @ found[:, border].transpose(1, 2)).view(*histograms.shape[:2], 4, side)
    by_side = likeness.topk(NEAREST, dim=-1).values.mean(dim=-1)
    contrast: Tensor = (1 - by_side.topk(SIDES, dim=-1).values.mean(dim=-1)).clamp_min(1e-3) ** power
    return contrast / contrast.mean(dim=1, keepdim=True)


def weighted(lab: Tensor, lbp: Tensor, values: CellValues) -> Tensor:
    """Return a mode's values ``[images, tokens, 214]``; see :class:`retrieval.models.modes.CellValues`."""
    described = torch.cat([lab, values.patterns * lbp], dim=-1)
    if not values.contrast:
        return described
    matched = torch.cat([lab, MATCH_PATTERNS * lbp], dim=-1)
    return described * border_contrast(matched, values.contrast)[..., None]
