"""The kernel against its formula in float64 numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import UsageError
from retrieval.scoring.aas import QKV, Comparison, aligned_attention_scores, bounded, own_output
from retrieval.types import Similarity
from tests.slices import examples
from tests.support.reference import diffsim, directed
from tests.support.tensors import as_triple, random_qkv

SHAPES = st.tuples(*(st.integers(1, n) for n in (2, 3, 6, 5)))
MSE = Comparison("mse")


@given(SHAPES, st.integers(1, 5), st.integers(0, 2**31), st.sampled_from(["cosine", "mse"]))
@settings(max_examples=examples(60), deadline=None)
def test_equals_the_formula(shape: tuple[int, ...], items: int, seed: int, similarity: Similarity) -> None:
    query, candidates = random_qkv(1, shape, seed), random_qkv(items, shape, seed + 1)
    a = as_triple(query, 0)
    expected = {
        "both": [diffsim(a, as_triple(candidates, i), similarity) for i in range(items)],
        "query_to_candidate": [directed(a, as_triple(candidates, i), similarity) for i in range(items)],
        "candidate_to_query": [directed(as_triple(candidates, i), a, similarity) for i in range(items)],
    }
    for directions, values in expected.items():
        how = Comparison(similarity, directions=directions)  # type: ignore[arg-type]
        scores = aligned_attention_scores(query, candidates, how)
        np.testing.assert_allclose(scores.numpy(), values, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("similarity", ["cosine", "mse"])
@pytest.mark.parametrize("tokens", [8, 1024])
def test_no_candidate_has_no_score(tokens: int, similarity: Similarity) -> None:
    """Also where rows are long enough to be compared one by one."""
    shape = (1, 1, tokens, 8)
    scores = aligned_attention_scores(random_qkv(1, shape, 0), random_qkv(0, shape, 1), Comparison(similarity))
    assert (scores.shape, scores.dtype) == ((0,), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_arithmetic_is_float32_whatever_the_inputs(dtype: torch.dtype) -> None:
    shape = (2, 8, 64, 40)
    query, candidates = (random_qkv(n, shape, n).to("cpu", dtype) for n in (1, 4))
    scores = aligned_attention_scores(query, candidates)
    exact = [diffsim(as_triple(query, 0), as_triple(candidates, i)) for i in range(4)]
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores.numpy(), exact, atol=2e-6)


@pytest.mark.parametrize("similarity", ["cosine", "mse"])
def test_a_score_does_not_depend_on_batch_or_order(similarity: Similarity) -> None:
    how = Comparison(similarity)
    query, candidates = random_qkv(1, (2, 4, 64, 16), 0), random_qkv(33, (2, 4, 64, 16), 1)
    together = aligned_attention_scores(query, candidates, how)
    alone = torch.cat([aligned_attention_scores(query, candidates[i : i + 1], how) for i in range(33)])
    order = torch.randperm(33, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(alone, together, rtol=1e-6, atol=1e-6)
    shuffled = aligned_attention_scores(query, candidates[order], how)
    torch.testing.assert_close(shuffled, together[order], rtol=1e-6, atol=1e-6)


def test_an_image_scores_one_with_itself() -> None:
    image = random_qkv(1, (2, 3, 9, 4), 5)
    assert aligned_attention_scores(image, image).item() == pytest.approx(1.0, abs=1e-6)
    assert aligned_attention_scores(image, image, MSE).item() == pytest.approx(0.0, abs=1e-9)


def test_the_cosine_is_one_over_the_whole_tensor_not_a_mean_of_heads() -> None:
    query, candidate = random_qkv(1, (2, 4, 8, 4), 1), random_qkv(1, (2, 4, 8, 4), 2)
    heads = [
        aligned_attention_scores(*(QKV(*(t[:, :, h : h + 1] for t in (x.q, x.k, x.v))) for x in (query, candidate)))
        for h in range(4)
    ]
    whole = aligned_attention_scores(query, candidate)
    assert abs(whole.item() - torch.stack(heads).mean().item()) > 1e-3


def test_own_outputs_at_hand_change_nothing() -> None:
    query, candidates = random_qkv(1, (1, 2, 8, 4), 1), random_qkv(3, (1, 2, 8, 4), 2)
    scores = aligned_attention_scores(
        query, candidates, query_own=own_output(query), candidates_own=own_output(candidates)
    )
    torch.testing.assert_close(scores, aligned_attention_scores(query, candidates), rtol=1e-6, atol=1e-6)


def test_huge_logits_and_zero_values_stay_finite() -> None:
    query, candidates = random_qkv(1, (1, 2, 8, 4), 1, spread=300.0), random_qkv(3, (1, 2, 8, 4), 2, spread=300.0)
    assert aligned_attention_scores(query, candidates).isfinite().all()
    nothing = QKV(candidates.q, candidates.k, torch.zeros_like(candidates.v))
    assert aligned_attention_scores(query, nothing).isfinite().all()


def test_wrong_words_and_shapes_are_refused() -> None:
    image, other = random_qkv(1, (1, 2, 8, 4), 1), random_qkv(1, (1, 3, 8, 4), 1)
    with pytest.raises(UsageError, match="unknown similarity 'euclid'; known: cosine, mse"):
        Comparison("euclid")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown directions 'there'; known: both, query_to_candidate"):
        Comparison(directions="there")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one query"):
        aligned_attention_scores(image, other)
    with pytest.raises(ValueError, match="share one shape"):
        QKV(image.q, image.k, other.v)


def test_people_see_no_cosine_beyond_one() -> None:
    assert [bounded(score) for score in (1.0000001, 0.5, -1.0000001)] == [1.0, 0.5, -1.0]
    assert bounded(2.5, "mse") == 2.5
    assert np.isnan(bounded(float("nan")))
