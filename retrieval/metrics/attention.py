"""AAS between features that are kept: the kernel of :mod:`retrieval.aas`, where an image's own output is known.

An image's own output ``attn(Q, K, V)`` is part of its features, so a pair costs two attentions, not four.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.aas import QKV, AnyReadout, attention_output, compare, read
from retrieval.metrics import Features
from retrieval.vocabulary import LINEAR, Directions, Similarity

CHUNK_BYTES = 64 << 20  # of float32 outputs that are compared at a time


@dataclass(frozen=True)
class Comparison:
    """How two attention outputs become a score."""

    similarity: Similarity = "cosine"
    directions: Directions = "both"
    readout: AnyReadout = LINEAR


def attention_features(tensors: QKV, readout: AnyReadout = LINEAR) -> Features:
    """Return what a metric keeps of images: q, k, v and the images' own outputs, in the dtype of q, on the CPU."""
    q, k, v = tensors.q, tensors.k, tensors.v
    own = read(attention_output(q, k, v), readout).to(q.dtype)
    keys = k.clone() if k is q else k  # stored side by side, and a file can't hold one tensor under two names
    return {name: t.cpu() for name, t in (("q", q), ("k", keys), ("v", v), ("own", own))}


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
        cross = read(attention_output(_repeated(query["q"], items), chunk["k"], chunk["v"]), how.readout)
        scores.append(compare(query["own"].float(), cross, how.similarity))
    if how.directions != "query_to_candidate":
        cross = attention_output(chunk["q"], _repeated(query["k"], items), _repeated(query["v"], items))
        cross = read(cross, how.readout)
        scores.append(compare(chunk["own"].float(), cross, how.similarity))
    return torch.stack(scores).mean(dim=0)


def _repeated(tensor: Tensor, items: int) -> Tensor:
    return tensor.expand(items, *tensor.shape[1:])
