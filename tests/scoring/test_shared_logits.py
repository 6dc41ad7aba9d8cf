"""Where queries are keys, both directions share one product: the scores stay those of separate tensors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import retrieval.scoring.aas as aas
from retrieval.scoring.aas import QKV, Comparison, PreparedQuery, score_queries
from retrieval.search.tensors.memory_cache import MemoryCache
from retrieval.types import Directions, Readout
from tests.slices import examples
from tests.support.reranking import scores_of
from tests.support.tensors import half_arrays, random_qkv

WAYS: st.SearchStrategy[Directions] = st.sampled_from(["both", "query_to_candidate", "candidate_to_query"])
HOW = st.builds(Comparison, st.sampled_from(["cosine", "mse"]), st.builds(Readout, st.booleans(), st.just(1e-3)), WAYS)


def tied(qkv: QKV) -> QKV:
    return QKV(qkv.k, qkv.k, qkv.v)


def apart(qkv: QKV) -> QKV:
    """Return the same numbers with queries and keys in memory of their own."""
    return QKV(qkv.k.clone(), qkv.k, qkv.v)


@given(st.lists(st.tuples(HOW, st.booleans(), st.integers(1, 9)), min_size=1, max_size=3), st.integers(0, 2**31))
@settings(max_examples=examples(60), deadline=None)
def test_scores_are_those_of_separate_tensors(asked: list[tuple[Comparison, bool, int]], seed: int) -> None:
    candidates = tied(random_qkv(4, (1, 1, 7, 5), seed))
    shared, separate = [], []
    for number, (how, is_masked, tokens) in enumerate(asked):
        query = tied(random_qkv(1, (1, 1, tokens, 5), seed + 1 + number))
        mask = 0.5 + torch.arange(tokens).float() % 3 if is_masked else None
        shared.append(PreparedQuery.of(query, how, mask))
        separate.append(PreparedQuery.of(apart(query), how, mask))
    torch.testing.assert_close(
        score_queries(shared, candidates), score_queries(separate, apart(candidates)), rtol=1e-5, atol=1e-5
    )


def test_queries_stay_keys_through_slices_casts_masks_and_joints() -> None:
    items = tied(random_qkv(3, (1, 1, 6, 4), 0))
    changed = (items[1:], items.to("cpu", torch.float64), QKV.cat([items, items]), QKV.union([items[:1], items[1:2]]))
    assert all(each.is_tied for each in (*changed, aas.masked(items[:1], torch.tensor([1, 0, 1, 1, 1, 0.5]))[0]))
    assert not QKV.cat([items, apart(items)]).is_tied


@pytest.mark.parametrize(
    ("shape", "shares"), [((1, 1, 49, 8), True), ((1, 2, 49, 8), False), ((2, 1, 9, 8), False), ((1, 1, 200, 8), False)]
)
def test_one_head_of_few_tokens_shares(shape: tuple[int, ...], shares: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    found = aas.output_of_keys
    monkeypatch.setattr(aas, "output_of_keys", lambda *given: calls.append(1) or found(*given))
    query, candidates = tied(random_qkv(1, shape, 0)), tied(random_qkv(2, shape, 1))
    score_queries([PreparedQuery.of(query)], candidates)
    assert bool(calls) == shares


def test_a_candidate_in_memory_holds_its_keys_once() -> None:
    """The second search takes the candidates of the first, and scores them alike."""
    query, gallery = tied(random_qkv(1, (1, 1, 6, 4), 0)), tied(random_qkv(5, (1, 1, 6, 4), 1))
    stored = half_arrays(gallery)

    def scores(cache: MemoryCache | None) -> object:
        mode = None if cache is None else cache.of_mode("semantic", torch.float32)
        reads = lambda rows: {name: array[list(rows)] for name, array in stored.items()}  # noqa: E731
        decode = lambda arrays: QKV(arrays["k"], arrays["k"], arrays["v"])  # noqa: E731
        return scores_of([query], [range(5)], reads, cache=mode, decode=decode)[0]

    cache = MemoryCache(1 << 20)
    expected = scores(None)
    for _ in range(2):
        np.testing.assert_allclose(scores(cache), expected, atol=1e-6)
    assert cache.nbytes == 5 * 3 * 6 * 4 * 4  # k, v and the output, float32
