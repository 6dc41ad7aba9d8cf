"""The Aligned Attention Score (AAS) of DiffSim (Song et al., ICCV 2025, section 3.2): pure functions on tensors.

With ``attn(Q, K, V) = softmax(Q Kᵀ / sqrt(D)) V`` of one self-attention layer, for images A and B::

    O_AA = attn(Q_A, K_A, V_A)            O_AB = attn(Q_A, K_B, V_B)
    AAS(A→B) = cos(vec(O_AA), vec(O_AB))
    DiffSim(A, B) = (AAS(A→B) + AAS(B→A)) / 2

Where a mode or model asks for it, a readout r is applied to both outputs: ``cos(vec(r(O_AA)), vec(r(O_AB)))``.

``vec`` flattens branches, heads, tokens and channels together: ONE cosine a pair, not a mean of cosines.
Axes are written ``[items, branches, heads, tokens, head_dim]`` everywhere. All arithmetic is float32 by default,
whatever the inputs' dtype, so a score depends neither on the batch nor on the order of candidates. A GPU may use
float16 for its attention (its sums are float32 there); outputs are always compared in float32.

A token mask ``m [tokens]`` on the query's side scores a part of A: bool, or weights of 0 or more. Tokens of weight 0
are taken out of Q_A, K_A and V_A before anything is computed; other weights multiply the entries of O_AA and O_AB by
``sqrt(m)`` and add ``log m`` to the logits of O_BA. Only the ratios of weights matter; :mod:`retrieval.scoring.regions`
has the equations.

A cosine is not clamped here: near-identical images may score 1.0000001, and a clamp would hide which is closer.
:func:`bounded` clamps a score once its place in a ranking is decided.

Keys and values may have a token count of their own (DiffSim-C: 16 image tokens). The query may have another token
count than the candidates: a *union* of several images, :meth:`QKV.union`, is one query with all their tokens.
Candidates share one token count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from retrieval.errors import UsageError
from retrieval.scoring.outputs import AnyReadout, attention_output, compare, read
from retrieval.scoring.regions import choose_tokens
from retrieval.scoring.shared_logits import may_share, output_of_keys, output_of_logits, shared_logits
from retrieval.types import LINEAR, Directions, Similarity


@dataclass(frozen=True)
class QKV:
    """Queries, keys and values of one layer, each ``[items, branches, heads, tokens, head_dim]``, any float dtype.

    Keys and values may have another token count than the queries. The values' head_dim may differ from that of
    queries and keys, and one head of values may serve all heads. Queries and keys may be one tensor, which then stays
    one through every method.
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
        return self.each(lambda tensor: tensor[items])

    @property
    def is_tied(self) -> bool:
        """Whether queries and keys are one tensor."""
        return self.q is self.k

    def each(self, change: Callable[[Tensor], Tensor]) -> "QKV":
        """Return the tensors, all changed alike."""
        k = change(self.k)
        return QKV(k if self.is_tied else change(self.q), k, change(self.v))

    @classmethod
    def cat(cls, parts: Sequence["QKV"]) -> "QKV":
        """Return the items of all ``parts``."""
        return cls._joined(parts, 0)

    @classmethod
    def union(cls, parts: Sequence["QKV"]) -> "QKV":
        """Return one item that has the queries, keys and values of all ``parts``, one item each.

        So ``attn(Q, K, V)`` lets every token of every part attend to the tokens of all parts.
        """
        return cls._joined(parts, 3)

    @classmethod
    def _joined(cls, parts: Sequence["QKV"], dim: int) -> "QKV":
        k, v = (torch.cat(tensors, dim) for tensors in ([part.k for part in parts], [part.v for part in parts]))
        tied = all(part.is_tied for part in parts)
        return cls(k if tied else torch.cat([part.q for part in parts], dim), k, v)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "QKV":
        """Return the tensors on ``device``, cast to ``dtype`` where one is given."""
        return self.each(lambda tensor: tensor.to(device=device, dtype=dtype))


@dataclass(frozen=True)
class Comparison:
    """How the tensors of two images become a score.

    Raises:
        UsageError: unknown ``similarity`` or ``directions``.
    """

    similarity: Similarity = "cosine"  # cosine: in [-1, 1], higher is closer; mse: >= 0, lower is closer
    readout: AnyReadout = LINEAR
    directions: Directions = "both"  # the mean of both directed scores, or one of them
    precision: torch.dtype | None = None  # dtype of attention; None: float32, or a re-ranking device's own

    def __post_init__(self) -> None:
        for word, value, known in (
            ("similarity", self.similarity, get_args(Similarity)),
            ("directions", self.directions, get_args(Directions)),
        ):
            if value not in known:
                raise UsageError(f"unknown {word} '{value}'; known: {', '.join(known)}")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that attention is computed in."""
        return self.precision or torch.float32


PUBLISHED = Comparison()
"""The published score: the mean cosine of both directions, outputs read as they are."""


def aligned_attention_scores(
    query: QKV,
    candidates: QKV,
    how: Comparison = PUBLISHED,
    query_own: Tensor | None = None,
    candidates_own: Tensor | None = None,
    query_mask: Tensor | None = None,
) -> Tensor:
    """Score one query against many candidates.

    Args:
        query: one item, ``[1, branches, heads, tokens, head_dim]``.
        candidates: ``[candidates, branches, heads, tokens, head_dim]`` on the query's device; the token counts may
            differ from the query's.
        how: similarity, readout, directions and precision.
        query_own: ``own_output(query, how, query_mask)`` where the caller has it already.
        candidates_own: ``own_output(candidates, how)``, likewise.
        query_mask: bool or weights >= 0, ``[tokens]`` or ``[1, tokens]``: how much each token of the query counts, see
            the module. None: all alike, at no cost.

    Returns:
        float32 ``[candidates]``; a cosine may pass 1 by rounding, see :func:`bounded`.

    Raises:
        UsageError: a mask of zeros, or of weights that are not finite numbers >= 0.
        ValueError: more than one query, shapes that differ, or a mask on a query whose keys are other tokens.
    """
    return score_queries([PreparedQuery.of(query, how, query_mask, query_own)], candidates, candidates_own)[0]


@dataclass(frozen=True)
class PreparedQuery:
    """A query as it is compared: without the tokens that its mask leaves out, and with its own output."""

    part: QKV  # one item
    weights: Tensor | None  # float32 [tokens of the part]; None: all count alike
    own: Tensor  # float32 ``[1, ...]``, as read; not used where only candidates ask
    how: Comparison

    @classmethod
    def of(
        cls, query: QKV, how: Comparison = PUBLISHED, mask: Tensor | None = None, own: Tensor | None = None
    ) -> "PreparedQuery":
        """Prepare a query; for arguments and errors see :func:`aligned_attention_scores`."""
        part, weights = masked(query, mask)
        return cls(part, weights, _own(part, how, weights) if own is None else own, how)


def score_queries(queries: Sequence[PreparedQuery], candidates: QKV, candidates_own: Tensor | None = None) -> Tensor:
    """Score several queries against the same candidates: all queries' tokens attend to these in one call.

    Args:
        queries: one or more of one precision; their token counts may differ.
        candidates: see :func:`aligned_attention_scores`; their queries are not used if none of them ask.
        candidates_own: their own output, where the caller has it already.

    Returns:
        float32 ``[queries, candidates]``.

    Raises:
        ValueError: a query is several items, or shapes differ.
    """
    for query in queries:
        _check(query.part, candidates)
    logits = _shared_logits(queries, candidates)
    outputs = iter(_cross_outputs(queries, candidates, logits))
    if candidates_own is None and any(query.how.directions != "query_to_candidate" for query in queries):
        candidates_own = _own(candidates, queries[0].how)
    scores = []
    for number, query in enumerate(queries):
        how, directed = query.how, []
        if how.directions != "candidate_to_query":
            directed.append(compare(query.own, read(next(outputs), how.readout, query.weights), how.similarity))
        if candidates_own is not None and how.directions != "query_to_candidate":
            cross = _back_output(query, candidates, logits[number] if logits else None)
            directed.append(compare(candidates_own, read(cross, how.readout), how.similarity))
        scores.append(torch.stack(directed).mean(dim=0))
    return torch.stack(scores)


def _shared_logits(queries: Sequence[PreparedQuery], candidates: QKV) -> Sequence[Tensor] | None:
    """Return each query's :func:`shared_logits`; None: they can't be shared, or it does not pay."""
    keys, tokens = [query.part.k for query in queries], sum(query.part.k.shape[3] for query in queries)
    tied = candidates.is_tied and all(query.part.is_tied for query in queries)
    if not tied or queries[0].how.dtype != torch.float32 or not may_share(candidates.k, tokens):
        return None
    together = torch.cat(keys, dim=3) if len(keys) > 1 else keys[0]
    return torch.split(shared_logits(together, candidates.k), [k.shape[3] for k in keys], dim=4)


def _cross_outputs(
    queries: Sequence[PreparedQuery], candidates: QKV, logits: Sequence[Tensor] | None
) -> Sequence[Tensor]:
    """Return the attention to the candidates of each query that asks; tokens of two queries do not see each other."""
    asks = [query.how.directions != "candidate_to_query" for query in queries]
    if logits is not None:
        return [output_of_keys(each, candidates.v) for each, wanted in zip(logits, asks, strict=True) if wanted]
    asking = [query.part.q for query, wanted in zip(queries, asks, strict=True) if wanted]
    if not asking:
        return ()
    together = torch.cat(asking, dim=3) if len(asking) > 1 else asking[0]
    cross = attention_output(_repeat(together, candidates), candidates.k, candidates.v, queries[0].how.dtype)
    return torch.split(cross, [q.shape[3] for q in asking], dim=3)


def _back_output(query: PreparedQuery, candidates: QKV, logits: Tensor | None) -> Tensor:
    """Return the candidates' attention to the query."""
    if logits is not None:
        return output_of_logits(logits, query.part.v, query.weights)
    k, v = _repeat(query.part.k, candidates), _repeat(query.part.v, candidates)
    return attention_output(candidates.q, k, v, query.how.dtype, query.weights)


def own_output(images: QKV, how: Comparison = PUBLISHED, mask: Tensor | None = None) -> Tensor:
    """Return each image's attention to itself as it is compared, float32 ``[items, ...]``.

    Args:
        images: any number of items.
        how: only its readout and precision count.
        mask: of one query's tokens, see :func:`aligned_attention_scores`.
    """
    part, weights = masked(images, mask)
    return _own(part, how, weights)


def _own(images: QKV, how: Comparison, weights: Tensor | None = None) -> Tensor:
    return read(attention_output(images.q, images.k, images.v, how.dtype, weights), how.readout, weights)


def higher_is_closer(similarity: Similarity) -> bool:
    """Say which way scores of ``similarity`` are ordered."""
    return similarity == "cosine"


def bounded(score: float, similarity: Similarity = "cosine") -> float:
    """Return a score as people see it: a cosine that rounding took past 1 or -1 becomes 1 or -1."""
    return min(max(score, -1.0), 1.0) if similarity == "cosine" else score


def _repeat(tensor: Tensor, candidates: QKV) -> Tensor:
    """Let one item stand for as many as there are candidates, without a copy."""
    return tensor.expand(len(candidates), -1, -1, -1, -1)


def masked(query: QKV, mask: Tensor | None) -> tuple[QKV, Tensor | None]:
    """Return the query without the tokens that the mask leaves out, and the weights of the others."""
    if mask is None:
        return query, None
    tokens = query.q.shape[3]
    if query.k.shape[3] != tokens:
        raise ValueError(f"a mask needs keys of the query's own {tokens} tokens, not of {query.k.shape[3]} others")
    chosen, weights = choose_tokens(mask.to(query.q.device), tokens)
    return query.each(lambda tensor: tensor.index_select(3, chosen)), weights


def _check(query: QKV, candidates: QKV) -> None:
    pairs = ((query.q, candidates.q), (query.k, candidates.k), (query.v, candidates.v))
    same = all((*mine.shape[1:3], mine.shape[4]) == (*theirs.shape[1:3], theirs.shape[4]) for mine, theirs in pairs)
    if len(query) != 1 or not same:
        raise ValueError(
            "one query [1, ...] and candidates of its branches, heads and head_dim are needed, got "
            f"{list(query.q.shape)} and {list(candidates.q.shape)}"
        )
