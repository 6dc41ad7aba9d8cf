"""Several queries against the same candidates: each gets the scores that it gets alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.scoring.aas import QKV, Comparison, PreparedQuery, aligned_attention_scores, own_output, score_queries
from retrieval.types import Directions, Readout
from tests.slices import examples
from tests.support.tensors import random_qkv

WAYS: st.SearchStrategy[Directions] = st.sampled_from(["both", "query_to_candidate", "candidate_to_query"])
MASKED = st.tuples(WAYS, st.booleans())


@given(st.lists(MASKED, min_size=1, max_size=4), st.integers(0, 2**31), st.sampled_from(["cosine", "mse"]))
@settings(max_examples=examples(40), deadline=None)
def test_each_query_gets_its_own_scores(asked: list[tuple[Directions, bool]], seed: int, similarity: str) -> None:
    shape = (2, 3, 7, 5)
    candidates, prepared, alone = random_qkv(4, shape, seed), [], []
    for number, (directions, is_masked) in enumerate(asked):
        query = random_qkv(1, shape, seed + 1 + number)
        mask = torch.arange(7).float() * (torch.arange(7) % 3) if is_masked else None
        how = Comparison(similarity, Readout(root=True, floor=1e-3), directions)  # type: ignore[arg-type]
        prepared.append(PreparedQuery.of(query, how, mask))
        alone.append(aligned_attention_scores(query, candidates, how, query_mask=mask))
    own = own_output(candidates, prepared[0].how)
    for theirs in (None, own):
        torch.testing.assert_close(
            score_queries(prepared, candidates, theirs), torch.stack(alone), rtol=1e-6, atol=1e-6
        )


def test_queries_of_candidates_that_do_not_ask_are_not_needed() -> None:
    query, candidates = random_qkv(1, (1, 2, 6, 4), 0), random_qkv(3, (1, 2, 6, 4), 1)
    how = Comparison(directions="query_to_candidate")
    asked = QKV(candidates.q[:, :, :, :0], candidates.k, candidates.v)
    found = score_queries([PreparedQuery.of(query, how)], asked)[0]
    assert torch.equal(found, aligned_attention_scores(query, candidates, how))


def test_each_query_is_one_item() -> None:
    two = random_qkv(2, (1, 2, 6, 4), 0)
    with pytest.raises(ValueError, match="one query"):
        score_queries([PreparedQuery.of(two[:1]), PreparedQuery.of(two)], two)
