"""Outputs of attention, and how two are compared: pure functions on tensors, see :mod:`retrieval.scoring.aas`."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from retrieval.scoring.regions import attention_bias, read_weighted
from retrieval.types import Readout, Similarity

LONG = 32768  # entries of a row from which a CPU computes one dot product a row faster than all products at once

AnyReadout = Readout | Callable[[Tensor], Tensor]
"""How outputs are read before they are compared: elementwise, or by a function of float32
``[items, branches, heads, tokens, head_dim]`` that treats every token alike, such as an output projection."""


def attention_output(
    q: Tensor, k: Tensor, v: Tensor, dtype: torch.dtype = torch.float32, key_weights: Tensor | None = None
) -> Tensor:
    """Compute ``softmax(q kᵀ / sqrt(head_dim)) v``.

    Args:
        q: ``[items, branches, heads, tokens, head_dim]``.
        k: the shape of ``q``, except for its own token count.
        v: the shape of ``k``, except for its own head_dim; a single head is used by all heads of ``q``.
        dtype: of the arithmetic and of the result.
        key_weights: float32 ``[tokens of k]``, above 0: a key counts as so many copies of it.

    Returns:
        The shape of ``q`` with the head_dim of ``v``: the layer's output before its output projection.
    """
    v = v.expand(-1, -1, q.shape[2], -1, -1)
    # Branches and heads become one axis: with 5-D inputs torch leaves its fused kernel (over 4 times slower). Items
    # stay an axis of their own, so that one item expanded to many is never copied.
    q4, k4, v4 = (t.flatten(1, 2).to(dtype) for t in (q, k, v))
    bias = None if key_weights is None else attention_bias(key_weights, dtype)
    return scaled_dot_product_attention(q4, k4, v4, attn_mask=bias).reshape(*q.shape[:-1], v.shape[-1])


def read(output: Tensor, readout: AnyReadout, weights: Tensor | None = None) -> Tensor:
    """Read an output, as float32, elementwise (see :class:`retrieval.types.Readout`), or by a function.

    ``weights``, float32 ``[tokens]``: see :func:`retrieval.scoring.regions.read_weighted`.
    """
    output = output.float()
    if weights is not None:
        return read_weighted(output, partial(read, readout=readout), weights)
    if not isinstance(readout, Readout):
        return readout(output)
    return (output.clamp_min(0) + readout.floor).sqrt() if readout.root else output


def compare(own: Tensor, cross: Tensor, similarity: Similarity) -> Tensor:
    """Compare own and cross outputs, each ``[items, ...]``, as one vector an item; float32 ``[items]``.

    One item's own output may serve all cross outputs.
    """
    own, cross = own.flatten(1), cross.flatten(1)
    if similarity == "mse":
        return (own - cross).square().mean(dim=1)
    norms = _dot(own, own) * _dot(cross, cross)
    return _dot(own, cross) / norms.sqrt().clamp_min(torch.finfo(torch.float32).tiny)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner products ``[rows]`` of the rows of ``a`` and ``b``; one row of ``a`` may serve all."""
    if b.device.type == "cpu" and b.shape[1] >= LONG and len(b):
        return torch.stack([torch.dot(x, y) for x, y in zip(a.expand_as(b), b, strict=True)])
    return (a * b).sum(dim=1)
