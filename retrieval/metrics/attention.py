"""AAS for every metric on attention: the kernel of :mod:`retrieval.aas`, with two freedoms that it does not need.

Keys may be of another token count than queries (DiffSim-C: 16 image tokens), and the output may pass through the
layer's output projection before it is compared (CLIP). An image's own output ``attn(Q, K, V)`` is part of its
features, so a pair costs two attentions, not four.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from retrieval.aas import QKV, compare, higher_is_closer
from retrieval.metrics import Features, Metric, MetricSettings
from retrieval.vocabulary import Directions, Similarity

CHUNK_BYTES = 64 << 20  # of float32 outputs that are compared at a time

Projection = Callable[[Tensor], Tensor]
"""From float32 ``[items, branches, heads, tokens, head_dim]`` to what is compared, ``[items, ...]``."""


@dataclass(frozen=True)
class Comparison:
    """How two attention outputs become a score."""

    similarity: Similarity = "cosine"
    directions: Directions = "both"
    project: Projection | None = None


def attend(q: Tensor, k: Tensor, v: Tensor, project: Projection | None = None) -> Tensor:
    """Compute ``softmax(q kᵀ / sqrt(head_dim)) v`` in float32, and project it.

    Args:
        q: ``[items, branches, heads, tokens, head_dim]``.
        k: ``[items, branches, heads, key tokens, head_dim]``.
        v: the shape of ``k``.
        project: applied to the output, where the metric compares what comes after a projection.

    Returns:
        float32, the shape of ``q`` unless it is projected.
    """
    # Items and branches become one axis: with 5-D inputs torch leaves its fused kernel (over 4 times slower).
    q4, k4, v4 = (t.flatten(0, 1).float() for t in (q, k, v))
    output = scaled_dot_product_attention(q4, k4, v4).reshape(*q.shape[:-1], v.shape[-1])
    return output if project is None else project(output)


def attention_features(q: Tensor, k: Tensor, v: Tensor, project: Projection | None = None) -> Features:
    """Return what a metric keeps of images: q, k, v and the images' own outputs, in the dtype of ``q``, on the CPU."""
    own = attend(q, k, v, project).to(q.dtype)
    keys = k.clone() if k is q else k  # stored side by side, and a file can't hold one tensor under two names
    return {name: t.cpu() for name, t in (("q", q), ("k", keys), ("v", v), ("own", own))}


def features_of(tensors: QKV, project: Projection | None = None) -> Features:
    """Return the features of an extractor's output."""
    return attention_features(tensors.q, tensors.k, tensors.v, project)


@torch.inference_mode()
def score_attention(
    query: Features, gallery: Features, how: Comparison, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """Score one image against many, ``(AAS(A→B) + AAS(B→A)) / 2`` (see :mod:`retrieval.aas`); float32 ``[images]``."""
    total = len(gallery["q"])
    bytes_an_image = 4 * max(gallery["own"][:1].numel(), gallery["q"][:1].numel(), 1)
    size = max(1, min(64, CHUNK_BYTES // bytes_an_image))
    one = {name: tensor.to(device) for name, tensor in query.items()}
    scores = [
        _score_chunk(one, {name: t[at : at + size].to(device) for name, t in gallery.items()}, how)
        for at in range(0, total, size)
    ]
    return torch.cat(scores).cpu().numpy() if scores else np.empty(0, np.float32)


def _score_chunk(query: Features, chunk: Features, how: Comparison) -> Tensor:
    items = len(chunk["q"])
    scores = []
    if how.directions != "candidate_to_query":
        cross = attend(_repeated(query["q"], items), chunk["k"], chunk["v"], how.project)
        scores.append(compare(query["own"].float().expand_as(cross), cross, how.similarity))
    if how.directions != "query_to_candidate":
        cross = attend(chunk["q"], _repeated(query["k"], items), _repeated(query["v"], items), how.project)
        scores.append(compare(chunk["own"].float(), cross, how.similarity))
    return torch.stack(scores).mean(dim=0)


def _repeated(tensor: Tensor, items: int) -> Tensor:
    return tensor.expand(items, *tensor.shape[1:])


class AttentionMetric(Metric):
    """A metric whose features are those of :func:`attention_features`; leaves say how images become them."""

    def __init__(self, settings: MetricSettings, device: torch.device, project: Projection | None = None) -> None:
        """Take how outputs are compared from ``settings``, and where from ``device``."""
        self._how = Comparison(settings.similarity, settings.directions, project)
        self._device = device
        self.higher_is_closer = higher_is_closer(settings.similarity)

    def score(self, query: Features, gallery: Features) -> NDArray[np.float32]:
        """See :class:`retrieval.metrics.Metric`."""
        return score_attention(query, gallery, self._how, self._device)


def heads_of(tensor: Tensor, heads: int) -> Tensor:
    """Turn ``[items, tokens, width]`` into ``[items, heads, tokens, head_dim]``."""
    return tensor.reshape(*tensor.shape[:2], heads, -1).transpose(1, 2)


def one_branch(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Give ``[items, heads, tokens, head_dim]`` the axis of branches."""
    return tuple(tensor.unsqueeze(1) for tensor in tensors)
