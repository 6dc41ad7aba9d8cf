"""Token masks: score a part of the query only. Pure functions on tensors.

A mask says how much every token of the query counts. A token of weight ``w`` counts as ``w`` copies of that token:

* compared outputs: its entries are multiplied by ``sqrt(w)`` in both vectors, so inner products weigh it by ``w``;
* attention to the query: ``softmax_j(q·k_j / sqrt(D) + log w_j)``.

So weight 0 equals a query without the token, and multiplying all weights by one number changes no score.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from retrieval.errors import UsageError


def choose_tokens(mask: Tensor, tokens: int) -> tuple[Tensor, Tensor | None]:
    """Return the tokens that count, and how much each of them does.

    This reads the mask on the host, so a GPU is waited for.

    Args:
        mask: bool, or weights >= 0, ``[tokens]`` or ``[1, tokens]``.
        tokens: the query's token count.

    Returns:
        Positions int64 ``[chosen]`` on the mask's device, and weights float32 ``[chosen]`` of mean 1; None in place
        of equal weights.

    Raises:
        UsageError: no token is chosen, or a weight is negative, infinite or not a number.
        ValueError: another shape.
    """
    if tuple(mask.shape) not in ((tokens,), (1, tokens)):
        raise ValueError(f"a mask of shape [{tokens}] or [1, {tokens}] is needed, got {list(mask.shape)}")
    weights = mask.reshape(-1).float()
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise UsageError("the weights of a query's tokens must be finite numbers of 0 or more")
    chosen = weights.nonzero()[:, 0]
    if not len(chosen):
        raise UsageError("the mask leaves no token of the query: choose one at least")
    weights = weights[chosen]
    if bool((weights == weights[0]).all()):
        return chosen, None
    return chosen, weights / weights.mean()


def read_weighted(output: Tensor, read: Callable[[Tensor], Tensor], weights: Tensor) -> Tensor:
    """Read every token on its own and multiply its entries by the root of the token's weight.

    Args:
        output: ``[items, branches, heads, tokens, head_dim]``.
        read: a readout that treats every token alike, see :data:`retrieval.scoring.outputs.AnyReadout`.
        weights: float32 ``[tokens]``.

    Returns:
        float32 ``[items, tokens, values]``.
    """
    items, branches, heads, tokens, dim = output.shape
    alone = output.movedim(3, 1).reshape(items * tokens, branches, heads, 1, dim)
    return read(alone).reshape(items, tokens, -1) * weights.sqrt()[:, None]


def attention_bias(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the bias of logits for keys with ``weights [tokens]``: ``[1, 1, 1, tokens]`` in ``dtype``."""
    return weights.log().to(dtype)[None, None, None]
