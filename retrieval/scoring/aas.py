"""The Aligned Attention Score (AAS) of DiffSim (Song et al., ICCV 2025, section 3.2): pure functions on tensors.

With ``attn(Q, K, V) = softmax(Q Kᵀ / sqrt(D)) V`` of one self-attention layer, for images A and B::

    O_AA = attn(Q_A, K_A, V_A)            O_AB = attn(Q_A, K_B, V_B)
    AAS(A→B) = cos(vec(O_AA), vec(O_AB))
    DiffSim(A, B) = (AAS(A→B) + AAS(B→A)) / 2

and, where a mode or model asks for it, a readout r of both outputs: ``cos(vec(r(O_AA)), vec(r(O_AB)))``.

``vec`` flattens branches, heads, tokens and channels together: ONE cosine a pair, not a mean of cosines.
Axes are written ``[items, branches, heads, tokens, head_dim]`` everywhere. All arithmetic is float32 by default,
whatever the inputs' dtype, so a score depends neither on the batch nor on the order of candidates. A GPU may be given
float16 for its attention (its sums are float32 there); outputs are always compared in float32.

Keys and values may have a token count of their own (DiffSim-C: 16 image tokens). Not handled here: masks, and items of
different token counts (the index refuses to mix those).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from retrieval.errors import UsageError
from retrieval.types import LINEAR, Directions, Readout, Similarity

LONG = 8192  # numbers: on a CPU a call a row is then faster than one for all, which writes the products down

AnyReadout = Readout | Callable[[Tensor], Tensor]
"""How outputs are read before they are compared: elementwise, or by a function of float32
``[items, branches, heads, tokens, head_dim]`` such as an output projection."""


@dataclass(frozen=True)
class QKV:
    """Queries, keys and values of one layer, each ``[items, branches, heads, tokens, head_dim]``, any float dtype.

    Keys and values may be of another token count than the queries. The values' head_dim may be another one than the
    queries' and keys', and one head of values serves all heads.
    """

    q: Tensor
    k: Tensor
    v: Tensor

    def __post_init__(self) -> None:
        q, k, v = self.q.shape, self.k.shape, self.v.shape
        fits = len(q) == len(k) == len(v) == 5 and q[:3] == k[:3] and q[4] == k[4]
        if not fits or v[:2] != k[:2] or v[2] not in (1, k[2]) or v[3] != k[3]:
            raise ValueError(
                "q, k and v must share one shape [items, branches, heads, tokens, head_dim] (but k and v's tokens, "
                "v's head_dim, and v may have one head), got "
                f"{list(self.q.shape)}, {list(self.k.shape)} and {list(self.v.shape)}"
            )

    def __len__(self) -> int:
        return int(self.q.shape[0])

    def __getitem__(self, items: slice | Tensor) -> "QKV":
        return QKV(self.q[items], self.k[items], self.v[items])

    @classmethod
    def cat(cls, parts: Sequence["QKV"]) -> "QKV":
        """Return the items of all ``parts``."""
        q, k, v = (torch.cat([getattr(part, name) for part in parts]) for name in ("q", "k", "v"))
        return cls(q, k, v)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "QKV":
        """Return the tensors on ``device``, cast to ``dtype`` where one is given."""
        return QKV(*(t.to(device=device, dtype=dtype) for t in (self.q, self.k, self.v)))


def aligned_attention_scores(
    query: QKV,
    candidates: QKV,
    similarity: Similarity = "cosine",
    directions: Directions = "both",
    query_output: Tensor | None = None,
    candidate_outputs: Tensor | None = None,
    readout: AnyReadout = LINEAR,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Score one query against many candidates.

    Args:
        query: one item, ``[1, branches, heads, tokens, head_dim]``.
        candidates: ``[candidates, branches, heads, tokens, head_dim]`` on the query's device.
        similarity: ``cosine`` (in [-1, 1], higher is closer) or ``mse`` (>= 0, lower is closer).
        directions: the mean of both directed scores, or one of them.
        query_output: ``attention_output`` of the query with itself, where the caller has it already.
        candidate_outputs: likewise of every candidate with itself.
        readout: how the outputs are read before they are compared.
        dtype: of the attention's arithmetic; outputs are read and compared in float32.

    Returns:
        float32 ``[candidates]``.

    Raises:
        UsageError: unknown ``similarity`` or ``directions``.
        ValueError: more than one query, or shapes that differ.
    """
    _check(query, candidates, similarity, directions)
    scores = []
    if directions != "candidate_to_query":
        own = attention_output(query.q, query.k, query.v, dtype) if query_output is None else query_output
        cross = attention_output(query.q.expand_as(candidates.q), candidates.k, candidates.v, dtype)
        scores.append(compare(read(own, readout), read(cross, readout), similarity))
    if directions != "query_to_candidate":
        theirs = candidate_outputs
        own = attention_output(candidates.q, candidates.k, candidates.v, dtype) if theirs is None else theirs
        cross = attention_output(candidates.q, query.k.expand_as(candidates.k), query.v.expand_as(candidates.v), dtype)
        scores.append(compare(read(own, readout), read(cross, readout), similarity))
    return torch.stack(scores).mean(dim=0)


def attention_output(q: Tensor, k: Tensor, v: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Compute ``softmax(q kᵀ / sqrt(head_dim)) v``.

    Args:
        q: ``[items, branches, heads, tokens, head_dim]``.
        k: the shape of ``q`` but for its own tokens.
        v: the shape of ``k`` but for its own head_dim; a single head is used by all heads of ``q``.
        dtype: of the arithmetic and of the result.

    Returns:
        The shape of ``q`` with the head_dim of ``v``: the layer's output before its output projection.
    """
    v = v.expand(-1, -1, q.shape[2], -1, -1)
    # Branches and heads become one axis: with 5-D inputs torch leaves its fused kernel (over 4 times slower). Items
    # stay an axis of their own, so that one item expanded to many is never copied.
    q4, k4, v4 = (t.flatten(1, 2).to(dtype) for t in (q, k, v))
    return scaled_dot_product_attention(q4, k4, v4).reshape(*q.shape[:-1], v.shape[-1])


def read(output: Tensor, readout: AnyReadout) -> Tensor:
    """Read an output, as float32, elementwise (see :class:`retrieval.types.Readout`), or by a function."""
    output = output.float()
    if not isinstance(readout, Readout):
        return readout(output)
    return (output.clamp_min(0) + readout.floor).sqrt() if readout.root else output


def compare(own: Tensor, cross: Tensor, similarity: Similarity) -> Tensor:
    """Compare own and cross outputs, each ``[items, ...]``, as one vector an item; float32 ``[items]``.

    One item's own output may serve all of the cross outputs.
    """
    own, cross = own.flatten(1), cross.flatten(1)
    if similarity == "mse":
        return (own - cross).square().mean(dim=1)
    norms = _dot(own, own) * _dot(cross, cross)
    return _dot(own, cross) / norms.sqrt().clamp_min(torch.finfo(torch.float32).tiny)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner products ``[rows]`` of the rows of ``a`` (one of which may serve all) and ``b``."""
    if b.device.type == "cpu" and b.shape[1] >= LONG and len(b):
        return torch.stack([torch.dot(x, y) for x, y in zip(a.expand_as(b), b, strict=True)])
    return (a * b).sum(dim=1)


def higher_is_closer(similarity: Similarity) -> bool:
    """Say which way scores of ``similarity`` are ordered."""
    return similarity == "cosine"


def _check(query: QKV, candidates: QKV, similarity: str, directions: str) -> None:
    if similarity not in get_args(Similarity):
        raise UsageError(f"unknown similarity '{similarity}'; known: {', '.join(get_args(Similarity))}")
    if directions not in get_args(Directions):
        raise UsageError(f"unknown directions '{directions}'; known: {', '.join(get_args(Directions))}")
    pairs = ((query.q, candidates.q), (query.k, candidates.k), (query.v, candidates.v))
    if len(query) != 1 or any(mine.shape[1:] != theirs.shape[1:] for mine, theirs in pairs):
        raise ValueError(
            f"one query [1, ...] and candidates of its shape are needed, got {list(query.q.shape)} "
            f"and {list(candidates.q.shape)}"
        )
