"""A union of images is one query with all their tokens: each attends to the tokens of all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.scoring.aas import QKV, Comparison, aligned_attention_scores
from retrieval.types import LINEAR, Readout, Similarity
from tests.slices import examples
from tests.support.reference import attention
from tests.support.tensors import as_triple, random_qkv

SHAPES = st.tuples(*(st.integers(1, n) for n in (2, 3, 6, 5)))
SIMILARITIES = st.sampled_from(["cosine", "mse"])
READOUTS = st.sampled_from([LINEAR, Readout(root=True, floor=1e-3)])


@given(SHAPES, st.integers(0, 2**31), SIMILARITIES, READOUTS)
@settings(max_examples=examples(30), deadline=None)
def test_a_union_of_one_image_is_that_image(
    shape: tuple[int, ...], seed: int, similarity: Similarity, readout: Readout
) -> None:
    image, candidates, how = random_qkv(1, shape, seed), random_qkv(3, shape, seed + 1), Comparison(similarity, readout)
    union = aligned_attention_scores(QKV.union([image]), candidates, how)
    assert torch.equal(union, aligned_attention_scores(image, candidates, how))


@given(SHAPES, st.integers(0, 2**31), SIMILARITIES, st.integers(2, 4))
@settings(max_examples=examples(30), deadline=None)
def test_the_order_of_a_union_does_not_matter(
    shape: tuple[int, ...], seed: int, similarity: Similarity, images: int
) -> None:
    parts, candidates = [random_qkv(1, shape, seed + n) for n in range(images)], random_qkv(3, shape, seed + 9)
    how = Comparison(similarity)
    forward = aligned_attention_scores(QKV.union(parts), candidates, how)
    torch.testing.assert_close(aligned_attention_scores(QKV.union(parts[::-1]), candidates, how), forward)


@given(SHAPES, st.integers(0, 2**31), st.integers(1, 3))
@settings(max_examples=examples(30), deadline=None)
def test_a_weight_counts_copies_of_an_image(shape: tuple[int, ...], seed: int, copies: int) -> None:
    first, second = random_qkv(1, shape, seed), random_qkv(1, shape, seed + 1)
    candidates, tokens = random_qkv(3, shape, seed + 2), shape[2]
    weights = torch.cat([torch.full((tokens,), float(copies)), torch.ones(tokens)])
    weighted = aligned_attention_scores(QKV.union([first, second]), candidates, query_mask=weights)
    repeated = aligned_attention_scores(QKV.union([first] * copies + [second]), candidates)
    torch.testing.assert_close(weighted, repeated, atol=2e-5, rtol=0)


def test_a_union_follows_the_formula() -> None:
    first, second, candidate = (random_qkv(1, (2, 2, 5, 4), seed) for seed in (1, 2, 3))
    q, k, v = as_triple(QKV.union([first, second]), 0)
    theirs = as_triple(candidate, 0)
    own, cross = attention(q, k, v).ravel(), attention(q, *theirs[1:]).ravel()
    back_own, back = attention(*theirs).ravel(), attention(theirs[0], k, v).ravel()
    cosines = [a @ b / (a @ a * (b @ b)) ** 0.5 for a, b in ((own, cross), (back_own, back))]
    found = float(aligned_attention_scores(QKV.union([first, second]), candidate)[0])
    assert found == pytest.approx(sum(cosines) / 2, abs=1e-6)
