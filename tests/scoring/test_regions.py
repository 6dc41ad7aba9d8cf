"""Token masks: leaving tokens out is scoring a query without them, and a weight counts copies of a token."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import UsageError
from retrieval.scoring.aas import QKV, Comparison, aligned_attention_scores, own_output
from retrieval.scoring.regions import choose_tokens
from retrieval.types import LINEAR, Readout, Similarity
from tests.slices import examples
from tests.support.reference import attention
from tests.support.tensors import as_triple, random_qkv

ROOT = Readout(root=True, floor=1e-3)
SIMILARITIES = st.sampled_from(["cosine", "mse"])
DIRECTIONS = st.sampled_from(["both", "query_to_candidate", "candidate_to_query"])
SHAPES = st.tuples(*(st.integers(1, n) for n in (2, 3, 7, 5)))


def project(output: torch.Tensor) -> torch.Tensor:
    """A readout that joins heads, with an offset that a token of zeros would not lose, as CLIP's does."""
    joined = output.transpose(2, 3).flatten(3)
    weights = torch.randn(joined.shape[-1], 6, generator=torch.Generator().manual_seed(3))
    return joined @ weights + 0.5


READOUTS = st.sampled_from([LINEAR, ROOT, project])


def tokens_of(query: QKV, tokens: list[int]) -> QKV:
    return QKV(*(t[:, :, :, tokens] for t in (query.q, query.k, query.v)))


def slowly(query: QKV, candidate: QKV, how: Comparison) -> float:
    """Both directions of one pair in float64 numpy; token counts may differ."""
    (qa, ka, va), (qb, kb, vb) = as_triple(query, 0), as_triple(candidate, 0)

    def scored(own: np.ndarray, cross: np.ndarray) -> float:
        own, cross = own.ravel(), cross.ravel()
        if how.similarity == "mse":
            return float(np.mean((own - cross) ** 2))
        return float(own @ cross / (np.linalg.norm(own) * np.linalg.norm(cross)))

    there = scored(attention(qa, ka, va), attention(qa, kb, vb))
    back = scored(attention(qb, kb, vb), attention(qb, ka, va))
    return {"both": (there + back) / 2, "query_to_candidate": there, "candidate_to_query": back}[how.directions]


@given(SHAPES, st.integers(0, 2**31), SIMILARITIES, DIRECTIONS, READOUTS)
@settings(max_examples=examples(40), deadline=None)
def test_a_mask_of_ones_is_no_mask(
    shape: tuple[int, ...], seed: int, similarity: Similarity, directions: str, readout: Readout
) -> None:
    query, candidates = random_qkv(1, shape, seed), random_qkv(3, shape, seed + 1)
    how = Comparison(similarity, readout, directions)  # type: ignore[arg-type]
    plain = aligned_attention_scores(query, candidates, how)
    for mask in (torch.ones(shape[2], dtype=torch.bool), torch.full((1, shape[2]), 0.3)):
        masked = aligned_attention_scores(query, candidates, how, query_mask=mask)
        torch.testing.assert_close(masked, plain, rtol=1e-6, atol=1e-6)


@given(SHAPES, st.integers(0, 2**31), SIMILARITIES, DIRECTIONS, st.data())
@settings(max_examples=examples(60), deadline=None)
def test_leaving_tokens_out_is_the_formula_without_them(
    shape: tuple[int, ...], seed: int, similarity: Similarity, directions: str, data: st.DataObject
) -> None:
    tokens = shape[2]
    kept = data.draw(st.lists(st.integers(0, tokens - 1), min_size=1, unique=True).map(sorted))
    query, candidates = random_qkv(1, shape, seed), random_qkv(2, shape, seed + 1)
    how = Comparison(similarity, directions=directions)  # type: ignore[arg-type]
    mask = torch.tensor([token in kept for token in range(tokens)])
    part = tokens_of(query, kept)
    expected = [slowly(part, candidates[i : i + 1], how) for i in range(2)]
    for given_mask in (mask, mask.float() * 7):
        found = aligned_attention_scores(query, candidates, how, query_mask=given_mask)
        np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=1e-5)
        own = own_output(query, how, given_mask)
        torch.testing.assert_close(own, own_output(part, how), rtol=1e-6, atol=1e-6)
        at_hand = aligned_attention_scores(query, candidates, how, query_own=own, query_mask=given_mask)
        torch.testing.assert_close(at_hand, found, rtol=1e-6, atol=1e-6)


@given(SHAPES, st.integers(0, 2**31), SIMILARITIES, DIRECTIONS, READOUTS, st.sampled_from([0.01, 1.0, 50.0]), st.data())
@settings(max_examples=examples(60), deadline=None)
def test_a_weight_counts_copies_of_a_token(
    shape: tuple[int, ...],
    seed: int,
    similarity: Similarity,
    directions: str,
    readout: Readout,
    scale: float,
    data: st.DataObject,
) -> None:
    """And multiplying all weights by one number changes nothing."""
    tokens = shape[2]
    counts = data.draw(st.lists(st.integers(0, 3), min_size=tokens, max_size=tokens).filter(any))
    query, candidates = random_qkv(1, shape, seed), random_qkv(3, shape, seed + 1)
    how = Comparison(similarity, readout, directions)  # type: ignore[arg-type]
    repeated = tokens_of(query, [token for token, count in enumerate(counts) for _ in range(count)])
    expected = torch.stack([unmasked(repeated, candidates[i : i + 1], how) for i in range(3)])
    found = aligned_attention_scores(query, candidates, how, query_mask=torch.tensor(counts).float() * scale)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def unmasked(query: QKV, candidate: QKV, how: Comparison) -> torch.Tensor:
    """The score of two images of different token counts, each repeated as often as the other has tokens.

    That gives both one token count. Copies of all tokens alike change no attention and no similarity.
    """
    a, b = query.q.shape[3], candidate.q.shape[3]
    more, other = tokens_of(query, list(range(a)) * b), tokens_of(candidate, list(range(b)) * a)
    return aligned_attention_scores(more, other, how)[0]


def test_a_mask_names_some_token_and_fits() -> None:
    query, candidates = random_qkv(1, (1, 2, 6, 4), 0), random_qkv(2, (1, 2, 6, 4), 1)
    for zeros in (torch.zeros(6), torch.zeros(6, dtype=torch.bool)):
        with pytest.raises(UsageError, match="leaves no token of the query"):
            aligned_attention_scores(query, candidates, query_mask=zeros)
    for wrong in (-1.0, float("nan"), float("inf")):
        mask = torch.ones(6)
        mask[2] = wrong
        with pytest.raises(UsageError, match="finite numbers of 0 or more"):
            aligned_attention_scores(query, candidates, query_mask=mask)
    for shape in ((5,), (2, 6), (6, 1), ()):
        with pytest.raises(ValueError, match=r"shape \[6\] or \[1, 6\]"):
            aligned_attention_scores(query, candidates, query_mask=torch.ones(shape))
    cross = QKV(query.q, query.k[:, :, :, :4], query.v[:, :, :, :4])
    with pytest.raises(ValueError, match="keys of the query's own 6 tokens, not of 4 others"):
        aligned_attention_scores(
            cross, QKV(candidates.q, *(t[:, :, :, :4] for t in (candidates.k, candidates.v))), query_mask=torch.ones(6)
        )


def test_weights_have_mean_one_and_equal_ones_are_none() -> None:
    chosen, weights = choose_tokens(torch.tensor([0.0, 1.0, 3.0]), 3)
    assert chosen.tolist() == [1, 2]
    assert weights is not None
    assert weights.tolist() == [0.5, 1.5]
    chosen, weights = choose_tokens(torch.tensor([[0.0, 2.0, 2.0]]), 3)
    assert (chosen.tolist(), weights) == ([1, 2], None)


def test_a_half_precision_device_takes_a_mask() -> None:
    query, candidates = random_qkv(1, (1, 2, 16, 8), 0, spread=1.0), random_qkv(4, (1, 2, 16, 8), 1, spread=1.0)
    mask = torch.linspace(0, 1, 16)
    exact = aligned_attention_scores(query, candidates, query_mask=mask)
    halved = aligned_attention_scores(query, candidates, Comparison(precision=torch.float16), query_mask=mask)
    torch.testing.assert_close(halved, exact, rtol=0, atol=2e-3)
