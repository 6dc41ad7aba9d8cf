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

from retrieval.aas import QKV, read
from retrieval.vocabulary import Readout

CONTRAST_BELOW = 300  # timesteps of contrastive batches
TIMESTEPS = 1000


def draw_timesteps(generator: torch.Generator, images: int, contrast: bool) -> Tensor:
    """Draw int64 ``[images]``: one number for the whole batch where it is contrastive, else one an image."""
    if contrast:
        return torch.randint(0, CONTRAST_BELOW, (1,), generator=generator).expand(images).contiguous()
    return torch.randint(0, TIMESTEPS, (images,), generator=generator)


def all_pairs(first: QKV, second: QKV, readout: Readout, rows: Tensor | None = None) -> Tensor:
    """Score every image of ``first`` with every one of ``second``: float32 ``[len(first), len(second)]``.

    Args:
        first: tensors of one branch; see :class:`retrieval.aas.QKV`.
        second: other images' tensors of the same shape.
        readout: how outputs are read before the cosine.
        rows: query tokens to compare, all of them where None (a part of them estimates the score).
    """
    there, back = directed(first, second, readout, rows), directed(second, first, readout, rows)
    return (there + back.T) / 2


def directed(a: QKV, b: QKV, readout: Readout, rows: Tensor | None = None) -> Tensor:
    """Score from every image of ``a`` to every one of ``b``: the first half of :func:`all_pairs`."""
    queries = a.q[:, 0] if rows is None else a.q[:, 0][:, :, rows]
    scale = 1 / math.sqrt(queries.shape[-1])
    own = torch.softmax(queries @ a.k[:, 0].transpose(-1, -2) * scale, dim=-1) @ a.v[:, 0]
    cross = torch.softmax(queries[:, None] @ b.k[:, 0].transpose(-1, -2) * scale, dim=-1) @ b.v[:, 0]
    own, cross = normalize(read(own, readout).flatten(1), dim=-1), normalize(read(cross, readout).flatten(2), dim=-1)
    return torch.einsum("ac,abc->ab", own, cross)


def centred(tensors: QKV) -> QKV:
    """Subtract the batch's mean from the values: softmax rows sum to 1, so the outputs' mean goes with it."""
    return QKV(tensors.q, tensors.k, tensors.v - tensors.v.mean(dim=(0, 3), keepdim=True))


def pooled(tensors: QKV) -> Tensor:
    """Return the mean and deviation of the values over an image's tokens, centred over the batch, at norm 1."""
    values = tensors.v.flatten(1, 2).transpose(2, 3).flatten(1, 2)
    features = torch.cat([values.mean(dim=-1), values.std(dim=-1)], dim=1)
    return normalize(features - features.mean(dim=0), dim=1)


def info_nce(scores: Tensor, log_temperature: Tensor) -> tuple[Tensor, float]:
    """Return the loss above and the share of rows whose own pair scores highest; ``scores [n, n]``."""
    logits = scores * log_temperature.exp().clamp(max=100)
    labels = torch.arange(len(scores), device=scores.device)
    loss = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
    return loss, float((scores.argmax(dim=1) == labels).float().mean())
