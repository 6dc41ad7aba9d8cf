"""Explain a score: how much each token contributes, and which tokens attend to which. Pure functions on tensors.

A cosine is a sum over tokens. With ``a_t`` and ``b_t`` the entries of token t in both outputs::

    cos(vec(a), vec(b)) = sum over t of  <a_t, b_t> / (|vec(a)| |vec(b)|)

So the parts of A→B lie on the query's tokens, the parts of B→A on the candidate's tokens, and together they sum to the
score. A mean squared error is split in the same way.

An output is a sum over keys, ``b_t = sum over j of A_tj v_j``, so a part is split further over pairs of tokens::

    pair_tj = A_tj <a_t, v_j> / (|vec(a)| |vec(b)|)

where outputs are compared as they are. Other readouts and errors are no such sums: there a pair has the share ``A_tj``.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from retrieval.scoring.aas import PUBLISHED, QKV, Comparison, masked
from retrieval.scoring.outputs import read
from retrieval.scoring.regions import attention_bias, choose_tokens
from retrieval.types import LINEAR


@dataclass(frozen=True)
class Explanation:
    """The parts of one pair's score, and the attention between the two images.

    Attention and pairs are None where the keys are other tokens.
    """

    query_parts: Tensor  # float32 [query tokens]: contributions of A→B; zeros where that direction is not used
    candidate_parts: Tensor  # float32 [candidate tokens]: contributions of B→A, likewise
    query_attention: Tensor | None  # float32 [query tokens, candidate tokens]: A's attention to B, rows sum to 1
    candidate_attention: Tensor | None  # float32 [candidate tokens, query tokens]: B's attention to A, likewise
    query_pairs: Tensor | None  # float32 [query tokens, candidate tokens]: query_parts split over the keys
    candidate_pairs: Tensor | None  # float32 [candidate tokens, query tokens]: candidate_parts, likewise

    @property
    def pairs(self) -> Tensor:
        """The part of the score that each pair of tokens makes, float32 ``[query tokens, candidate tokens]``.

        Raises:
            ValueError: keys are other tokens.
        """
        if self.query_pairs is None or self.candidate_pairs is None:
            raise ValueError("keys that are other tokens make no pairs")
        return self.query_pairs + self.candidate_pairs.T

    @property
    def score(self) -> float:
        """The score that the parts sum to."""
        return float(self.query_parts.sum() + self.candidate_parts.sum())

    def scaled(self, factor: float) -> "Explanation":
        """Return the parts and pairs of ``factor`` times the score."""
        parts = ("query_parts", "candidate_parts", "query_pairs", "candidate_pairs")
        given = {name: getattr(self, name) for name in parts}
        return replace(self, **{name: factor * part for name, part in given.items() if part is not None})

    def of_tokens(self, tokens: slice) -> "Explanation":
        """Return the share of some of the query's tokens, such as those of one image of a union; it needs pairs."""
        assert self.query_pairs is not None
        assert self.candidate_pairs is not None
        back = self.candidate_pairs[:, tokens]
        attention = (
            None if self.query_attention is None else self.query_attention[tokens],
            None if self.candidate_attention is None else self.candidate_attention[:, tokens],
        )
        return Explanation(self.query_parts[tokens], back.sum(dim=1), *attention, self.query_pairs[tokens], back)


def explain(query: QKV, candidate: QKV, how: Comparison = PUBLISHED, query_mask: Tensor | None = None) -> Explanation:
    """Split the score of one pair; see :func:`retrieval.scoring.aas.aligned_attention_scores` for the score.

    Attention is the mean over branches and heads. Tokens that the mask leaves out get parts and attention of 0.

    Args:
        query: one item, ``[1, branches, heads, tokens, head_dim]``.
        candidate: one item, likewise.
        how: similarity, readout and directions; attention is computed in float32.
        query_mask: bool or weights >= 0, ``[tokens]`` of the query.

    Raises:
        UsageError, ValueError: see :func:`retrieval.scoring.aas.aligned_attention_scores`.
    """
    part, weights = masked(query, query_mask)
    tokens = query.q.shape[3]
    chosen = torch.arange(tokens) if query_mask is None else choose_tokens(query_mask.cpu(), tokens)[0]
    there, there_attention, there_pairs = _direction(part, candidate, how, weights, None)
    back, back_attention, back_pairs = _direction(candidate, part, how, None, weights)
    share = 0.5 if how.directions == "both" else 1.0
    on_query = 0.0 if how.directions == "candidate_to_query" else share
    on_candidate = 0.0 if how.directions == "query_to_candidate" else share
    drawable = query.k.shape[3] == tokens and candidate.k.shape[3] == candidate.q.shape[3]
    return Explanation(
        _spread(there * on_query, 0, chosen, tokens),
        (back * on_candidate).cpu(),
        _spread(there_attention, 0, chosen, tokens) if drawable else None,
        _spread(back_attention, 1, chosen, tokens) if drawable else None,
        _spread(there_pairs * on_query, 0, chosen, tokens) if drawable else None,
        _spread(back_pairs * on_candidate, 1, chosen, tokens) if drawable else None,
    )


def _spread(values: Tensor, axis: int, chosen: Tensor, tokens: int) -> Tensor:
    """Put the values of the ``chosen`` tokens in their places along ``axis``; the others get 0."""
    shape = [tokens if at == axis else size for at, size in enumerate(values.shape)]
    return torch.zeros(shape).index_copy(axis, chosen, values.cpu())


def _direction(
    asking: QKV, asked: QKV, how: Comparison, own_weights: Tensor | None, key_weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parts ``[tokens]`` of one direction, the attention ``[tokens, tokens asked]``, and both joined.

    ``own_weights`` weigh the asking image's tokens, ``key_weights`` those of the image that is asked.
    """
    _, own = _attend(asking, asking, own_weights)
    attention, cross = _attend(asking, asked, key_weights)
    parts, mean = _parts(own, cross, how, own_weights), attention.mean(dim=(0, 1, 2))
    if how.similarity != "cosine" or how.readout != LINEAR:
        return parts, mean, parts[:, None] * mean
    shares = (attention * (own @ asked.v.float().transpose(3, 4))).sum(dim=(0, 1, 2))
    weights = torch.ones(len(parts), device=own.device) if own_weights is None else own_weights
    norms = [(output.square().sum(dim=(0, 1, 2, 4)) * weights).sum().sqrt() for output in (own, cross)]
    return parts, mean, weights[:, None] * shares / (norms[0] * norms[1]).clamp_min(torch.finfo(torch.float32).tiny)


def _attend(asking: QKV, asked: QKV, key_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the attention ``[1, branches, heads, tokens, tokens asked]`` and the output."""
    q, k, v = asking.q.float(), asked.k.float(), asked.v.float()
    logits = q @ k.transpose(3, 4) / q.shape[4] ** 0.5
    if key_weights is not None:
        logits = logits + attention_bias(key_weights, torch.float32)
    attention = logits.softmax(dim=-1)
    return attention, attention @ v


def _parts(own: Tensor, cross: Tensor, how: Comparison, weights: Tensor | None) -> Tensor:
    """Split the comparison of two outputs over their tokens, float32 ``[tokens]``."""
    tokens = own.shape[3]
    ones = torch.ones(tokens, device=own.device) if weights is None else weights
    mine, theirs = (read(output, how.readout, ones).flatten(2)[0].double() for output in (own, cross))
    if how.similarity == "mse":
        parts = (mine - theirs).square().sum(dim=1) / mine.numel()
    else:
        norms = mine.norm() * theirs.norm()
        parts = (mine * theirs).sum(dim=1) / norms.clamp_min(torch.finfo(torch.float32).tiny)
    return parts.float()
