"""The published way to score pairs one after another, on tensors that are at hand; written from the formulas."""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention

from retrieval.scoring.aas import QKV


def published_loop(query: QKV, candidates: QKV) -> Tensor:
    """Score every candidate with four attention calls a pair; float32 ``[candidates]``."""
    scores = []
    qa, ka, va = query.q[0], query.k[0], query.v[0]
    for qb, kb, vb in zip(candidates.q, candidates.k, candidates.v, strict=True):
        there = _cosine(scaled_dot_product_attention(qa, ka, va), scaled_dot_product_attention(qa, kb, vb))
        back = _cosine(scaled_dot_product_attention(qb, kb, vb), scaled_dot_product_attention(qb, ka, va))
        scores.append((there + back) / 2)
    return torch.stack(scores)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return cosine_similarity(a.flatten(), b.flatten(), dim=0)
