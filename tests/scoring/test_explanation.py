"""Explanations: the parts of a score sum to it, lie on the tokens that agree, and attention sums to one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.scoring.aas import QKV, Comparison, aligned_attention_scores
from retrieval.scoring.explanation import explain
from retrieval.types import LINEAR, Readout, Similarity
from tests.slices import examples
from tests.support.tensors import random_qkv

SHAPES = st.tuples(*(st.integers(1, n) for n in (2, 3, 7, 5)))
DIRECTIONS = st.sampled_from(["both", "query_to_candidate", "candidate_to_query"])


def project(output: torch.Tensor) -> torch.Tensor:
    """A readout over all heads of a token, as CLIP's output projection is."""
    joined = output.transpose(2, 3).flatten(3)
    return joined @ torch.randn(joined.shape[-1], 6, generator=torch.Generator().manual_seed(3)) + 0.5


@given(
    shape=SHAPES,
    seed=st.integers(0, 2**31),
    similarity=st.sampled_from(["cosine", "mse"]),
    directions=DIRECTIONS,
    readout=st.sampled_from([LINEAR, Readout(root=True, floor=1e-3), project]),
    masking=st.sampled_from(["none", "some", "weights"]),
    tokens=st.integers(1, 6),
)
@settings(max_examples=examples(80), deadline=None)
def test_the_parts_sum_to_the_score(
    shape: tuple[int, ...],
    seed: int,
    similarity: Similarity,
    directions: str,
    readout: Readout,
    masking: str,
    tokens: int,
) -> None:
    query = random_qkv(1, shape, seed, spread=1.0)
    candidate = random_qkv(1, (*shape[:2], tokens, shape[3]), seed + 1, spread=1.0)
    mask = None
    if masking != "none":
        mask = torch.rand(shape[2], generator=torch.Generator().manual_seed(seed)) + (masking == "weights") * 0.1
        mask = mask if masking == "weights" else mask >= mask.median()
    how = Comparison(similarity, readout, directions)  # type: ignore[arg-type]
    found = explain(query, candidate, how, mask)
    score = float(aligned_attention_scores(query, candidate, how, query_mask=mask)[0])
    assert found.score == pytest.approx(score, abs=1e-5)
    assert found.query_parts.shape == (shape[2],)
    assert found.candidate_parts.shape == (tokens,)
    assert found.query_attention is not None
    assert found.candidate_attention is not None
    counts = torch.ones(shape[2]) if mask is None else (mask > 0).float()
    torch.testing.assert_close(found.query_attention.sum(dim=1), counts, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.candidate_attention.sum(dim=1), torch.ones(tokens), atol=1e-5, rtol=0)
    assert not found.query_parts[counts == 0].any()
    assert float(found.pairs.sum()) == pytest.approx(score, abs=1e-5)
    assert found.query_pairs is not None
    torch.testing.assert_close(found.query_pairs.sum(dim=1), found.query_parts, atol=1e-5, rtol=0)
    halves = [found.of_tokens(slice(0, 2)).score, found.of_tokens(slice(2, None)).score]
    assert sum(halves) == pytest.approx(score, abs=1e-5)
    assert found.scaled(-0.25).score == pytest.approx(-score / 4, abs=1e-5)


def test_a_pair_has_the_part_that_the_value_adds_not_the_attention_to_it() -> None:
    """The query attends to two tokens alike, but only one of them holds what the query has itself."""
    eyes = torch.eye(4)
    query = QKV(*(eyes[:1][None, None, None] for _ in range(3)))
    values = torch.stack([eyes[0], eyes[1]])[None, None, None]
    candidate = QKV(eyes[[2, 3]][None, None, None], eyes[[2, 2]][None, None, None], values)
    found = explain(query, candidate, Comparison(directions="query_to_candidate"))
    assert found.query_attention is not None
    assert found.query_attention.tolist() == [[0.5, 0.5]]
    assert found.pairs.tolist() == [[pytest.approx(0.5**0.5), 0.0]]
    rooted = explain(query, candidate, Comparison(readout=Readout(root=True), directions="query_to_candidate"))
    assert rooted.pairs[0, 0] == rooted.pairs[0, 1]


def test_keys_of_other_tokens_have_parts_and_no_attention() -> None:
    def with_few_keys(seed: int) -> QKV:
        whole = random_qkv(1, (2, 2, 6, 4), seed)
        return QKV(whole.q, whole.k[:, :, :, :2], whole.v[:, :, :, :2])

    query, candidate = with_few_keys(1), with_few_keys(2)
    found = explain(query, candidate)
    assert found.score == pytest.approx(float(aligned_attention_scores(query, candidate)[0]), abs=1e-5)
    assert (found.query_attention, found.candidate_attention) == (None, None)


def test_parts_are_largest_where_two_images_agree_and_attention_finds_the_place() -> None:
    """Token 3 of the query lies at token 0 of the candidate; all other tokens differ."""
    eyes = 6 * torch.eye(8)
    query = QKV(*(eyes[:4][None, None, None] for _ in range(3)))
    candidate = QKV(*(eyes[[3, 4, 5, 6]][None, None, None] for _ in range(3)))
    found = explain(query, candidate)
    assert found.query_attention is not None
    assert int(found.query_attention[3].argmax()) == 0
    assert int(found.query_parts.argmax()) == 3
    assert int(found.candidate_parts.argmax()) == 0
