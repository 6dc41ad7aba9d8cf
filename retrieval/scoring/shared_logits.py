"""Attention both ways from one product, where queries are keys: pure functions on tensors.

If ``Q = K`` in both images, then ``Q_B K_Aᵀ`` is the transpose of ``Q_A K_Bᵀ``, so one product of tokens gives the
logits of both directions. With one head of few tokens, plain products are as fast as the fused kernel. Every item is
multiplied by itself, so that its score does not depend on how many are scored at once.
"""

import torch
from torch import Tensor

from retrieval.scoring.regions import attention_bias

MOST_LOGITS = 1 << 14  # of an item and all queries together: more leave a CPU's cache, where the fused kernel keeps up


def may_share(k: Tensor, tokens: int) -> bool:
    """Say whether it pays for candidates' keys ``k`` and so many tokens of queries: one head, on a CPU, few tokens."""
    return k.device.type == "cpu" and k.shape[1] * k.shape[2] == 1 and k.shape[3] * tokens <= MOST_LOGITS


def shared_logits(a: Tensor, b: Tensor) -> Tensor:
    """Return ``b aᵀ / sqrt(head_dim)``, ``[items, 1, 1, tokens of b, tokens of a]``.

    Args:
        a: keys of one item, ``[1, 1, 1, tokens of a, head_dim]``.
        b: keys of the candidates, ``[items, 1, 1, tokens of b, head_dim]``.
    """
    return b @ _for_each((a / a.shape[-1] ** 0.5).transpose(-1, -2), b)


def output_of_logits(logits: Tensor, v: Tensor, key_weights: Tensor | None = None) -> Tensor:
    """Return the attention of b to a.

    Args:
        logits: see :func:`shared_logits`.
        v: values of a, ``[1, 1, 1, tokens of a, head_dim]``.
        key_weights: see :func:`retrieval.scoring.outputs.attention_output`.
    """
    if key_weights is not None:
        logits = logits + attention_bias(key_weights, logits.dtype)
    return torch.softmax(logits, dim=-1) @ _for_each(v, logits)


def output_of_keys(logits: Tensor, v: Tensor) -> Tensor:
    """Return the attention of a to b, whose values are ``v [items, 1, 1, tokens of b, head_dim]``."""
    return torch.softmax(logits, dim=-2).transpose(-1, -2) @ v


def _for_each(one: Tensor, items: Tensor) -> Tensor:
    """Let one item stand for as many as there are ``items``, without a copy."""
    return one.expand(len(items), -1, -1, -1, -1)
