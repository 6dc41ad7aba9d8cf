"""The training objective: predict noise, and tell groups apart by the Aligned Attention Score of the index itself.

For a batch of pairs (a_i, b_i), i = 1..n, with M_ij = DiffSim(a_i, b_j) by the formula of :mod:`retrieval.aas`::

    InfoNCE = -1/2n sum_i [ log softmax_j(tau M_ij)_i + log softmax_j(tau M_ji)_i ]

Two traps are closed here. All images of a contrastive batch are noised at ONE timestep: were it shared by a pair
only, the network would match pairs by it and learn nothing else. And outputs of the network's own values are centred
by the batch's mean before the cosine, without which all scores start near 1 and the loss is flat.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from retrieval.aas import read
from retrieval.mini.model import Tokens
from retrieval.readout import Readout

CONTRAST_BELOW = 300  # timesteps of contrastive batches
TIMESTEPS = 1000


def draw_timesteps(generator: torch.Generator, images: int, contrast: bool) -> Tensor:
    """Draw int64 ``[images]``: one number for the whole batch where it is contrastive, else one an image."""
    if contrast:
        return torch.randint(0, CONTRAST_BELOW, (1,), generator=generator).expand(images).contiguous()
    return torch.randint(0, TIMESTEPS, (images,), generator=generator)


def all_pairs(first: Tokens, second: Tokens, readout: Readout, rows: Tensor | None = None) -> Tensor:
    """Score every image of ``first`` with every one of ``second``: float32 ``[len(first), len(second)]``.

    Args:
        first: tensors with q, k ``[n, heads, tokens, d]`` and v ``[n, heads or 1, tokens, e]``.
        second: ``m`` images alike.
        readout: how outputs are read before the cosine.
        rows: query tokens to compare, all of them where None (a part of them estimates the score).
    """
    there, back = _directed(first, second, readout, rows), _directed(second, first, readout, rows)
    return (there + back.T) / 2


def _directed(a: Tokens, b: Tokens, readout: Readout, rows: Tensor | None) -> Tensor:
    q = a.q if rows is None else a.q[:, :, rows]
    scale = 1 / math.sqrt(q.shape[-1])
    own = torch.softmax(q @ a.k.transpose(-1, -2) * scale, dim=-1) @ a.v
    cross = torch.softmax(q[:, None] @ b.k.transpose(-1, -2) * scale, dim=-1) @ b.v
    own, cross = normalize(read(own, readout).flatten(1), dim=-1), normalize(read(cross, readout).flatten(2), dim=-1)
    return torch.einsum("ac,abc->ab", own, cross)


def described(tokens: Tokens, cells: Tensor) -> Tokens:
    """Put the saliency-weighted descriptor ``cells [images, tokens, channels]`` in the place of the values."""
    return Tokens(tokens.q, tokens.k, (cells * tokens.saliency[..., None])[:, None], tokens.saliency)


def centred(tokens: Tokens) -> Tokens:
    """Subtract the batch's mean from the values: softmax rows sum to 1, so the outputs' mean goes with it."""
    return Tokens(tokens.q, tokens.k, tokens.v - tokens.v.mean(dim=(0, 2), keepdim=True), tokens.saliency)


def split(tokens: Tokens, images: int) -> tuple[Tokens, Tokens]:
    """Return the first ``images`` and the rest, in float32."""
    every = [t.float() for t in (tokens.q, tokens.k, tokens.v, tokens.saliency)]
    return Tokens(*(t[:images] for t in every)), Tokens(*(t[images:] for t in every))


def info_nce(scores: Tensor, log_temperature: Tensor) -> tuple[Tensor, float]:
    """Return the loss above and the share of rows whose own pair scores highest; ``scores [n, n]``."""
    logits = scores * log_temperature.exp().clamp(max=100)
    labels = torch.arange(len(scores), device=scores.device)
    loss = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
    return loss, float((scores.argmax(dim=1) == labels).float().mean())
