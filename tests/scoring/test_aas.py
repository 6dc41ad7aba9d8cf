import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.devices.precision import ScoringPrecision
from retrieval.errors import UsageError
from retrieval.scoring.aas import QKV, aligned_attention_scores, attention_output
from retrieval.search.memory_cache import HotRows, HotTier
from retrieval.search.ranking import closest_first
from retrieval.search.reranking import score_rows
from retrieval.types import LINEAR, Readout, Similarity
from tests.support.reference import diffsim, directed

SHAPES = st.tuples(*(st.integers(1, n) for n in (2, 3, 6, 5)))


def random_qkv(items: int, shape: tuple[int, ...], seed: int, spread: float = 2.0) -> QKV:
    generator = torch.Generator().manual_seed(seed)
    return QKV(*(spread * torch.randn((items, *shape), generator=generator) for _ in range(3)))


def as_triple(qkv: QKV, item: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(t[item].double().numpy() for t in (qkv.q, qkv.k, qkv.v))  # type: ignore[return-value]


@given(SHAPES, st.integers(1, 5), st.integers(0, 2**31), st.sampled_from(["cosine", "mse"]))
@settings(max_examples=60, deadline=None)
def test_equals_the_formula(shape: tuple[int, ...], items: int, seed: int, similarity: str) -> None:
    query, candidates = random_qkv(1, shape, seed), random_qkv(items, shape, seed + 1)
    a = as_triple(query, 0)
    expected = {
        "both": [diffsim(a, as_triple(candidates, i), similarity) for i in range(items)],
        "query_to_candidate": [directed(a, as_triple(candidates, i), similarity) for i in range(items)],
        "candidate_to_query": [directed(as_triple(candidates, i), a, similarity) for i in range(items)],
    }
    for directions, values in expected.items():
        scores = aligned_attention_scores(query, candidates, similarity, directions)  # type: ignore[arg-type]
        np.testing.assert_allclose(scores.numpy(), values, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("similarity", ["cosine", "mse"])
@pytest.mark.parametrize("tokens", [8, 1024])
def test_no_candidate_has_no_score(tokens: int, similarity: Similarity) -> None:
    """Also where rows are long enough to be compared one by one."""
    shape = (1, 1, tokens, 8)
    scores = aligned_attention_scores(random_qkv(1, shape, 0), random_qkv(0, shape, 1), similarity)
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
def test_a_score_does_not_depend_on_batch_or_order(similarity: str) -> None:
    query, candidates = random_qkv(1, (2, 4, 64, 16), 0), random_qkv(33, (2, 4, 64, 16), 1)
    together = aligned_attention_scores(query, candidates, similarity)  # type: ignore[arg-type]
    alone = torch.cat([aligned_attention_scores(query, candidates[i : i + 1], similarity) for i in range(33)])  # type: ignore[arg-type]
    order = torch.randperm(33, generator=torch.Generator().manual_seed(2))
    shuffled = QKV(candidates.q[order], candidates.k[order], candidates.v[order])
    torch.testing.assert_close(alone, together, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        aligned_attention_scores(query, shuffled, similarity), together[order], rtol=1e-6, atol=1e-6
    )  # type: ignore[arg-type]


def test_an_image_scores_one_with_itself() -> None:
    image = random_qkv(1, (2, 3, 9, 4), 5)
    assert aligned_attention_scores(image, image).item() == pytest.approx(1.0, abs=1e-6)
    assert aligned_attention_scores(image, image, "mse").item() == 0.0


def test_the_cosine_is_one_over_the_whole_tensor_not_a_mean_of_heads() -> None:
    query, candidate = random_qkv(1, (2, 4, 8, 4), 1), random_qkv(1, (2, 4, 8, 4), 2)
    heads = [
        aligned_attention_scores(*(QKV(*(t[:, :, h : h + 1] for t in (x.q, x.k, x.v))) for x in (query, candidate)))
        for h in range(4)
    ]
    whole = aligned_attention_scores(query, candidate)
    assert abs(whole.item() - torch.stack(heads).mean().item()) > 1e-3


def test_a_query_output_at_hand_changes_nothing() -> None:
    query, candidates = random_qkv(1, (1, 2, 8, 4), 1), random_qkv(3, (1, 2, 8, 4), 2)
    own = attention_output(query.q, query.k, query.v)
    scores = aligned_attention_scores(query, candidates, query_output=own)
    assert torch.equal(scores, aligned_attention_scores(query, candidates))


def test_huge_logits_and_zero_values_stay_finite() -> None:
    query, candidates = random_qkv(1, (1, 2, 8, 4), 1, spread=300.0), random_qkv(3, (1, 2, 8, 4), 2, spread=300.0)
    assert aligned_attention_scores(query, candidates).isfinite().all()
    nothing = QKV(candidates.q, candidates.k, torch.zeros_like(candidates.v))
    assert aligned_attention_scores(query, nothing).isfinite().all()


def test_wrong_words_and_shapes_are_refused() -> None:
    image, other = random_qkv(1, (1, 2, 8, 4), 1), random_qkv(1, (1, 2, 9, 4), 1)
    with pytest.raises(UsageError, match="cosine, mse"):
        aligned_attention_scores(image, image, "euclid")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="query_to_candidate"):
        aligned_attention_scores(image, image, directions="there")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one query"):
        aligned_attention_scores(image, other)
    with pytest.raises(ValueError, match="share one shape"):
        QKV(image.q, image.k, other.v)


@given(st.permutations(list(range(20))), st.sampled_from([1, 3, 7, 64]), st.sampled_from([1, 2, 5, 64]))
@settings(max_examples=20, deadline=None)
def test_reranking_gives_each_row_its_own_score_in_any_order_and_chunk(rows: list[int], chunk: int, step: int) -> None:
    query, stored = random_qkv(1, (1, 2, 6, 4), 3), random_qkv(20, (1, 2, 6, 4), 4)
    arrays = {name: t.half().numpy() for name, t in (("q", stored.q), ("k", stored.k), ("v", stored.v))}
    reads: list[int] = []

    def read(wanted: list[int]) -> dict[str, np.ndarray]:
        reads.append(len(wanted))
        return {name: array[wanted] for name, array in arrays.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrieval.search.reranking.READ_ROWS", chunk)
        scored = score_rows([query], [rows], read, arithmetic=ScoringPrecision(torch.float32, 8 << 20, step))  # type: ignore[arg-type]
    cached = QKV(*(torch.from_numpy(arrays[name]) for name in "qkv"))
    expected = aligned_attention_scores(query, cached).numpy()[rows]
    np.testing.assert_allclose(scored.scores[0], expected, atol=1e-6)
    assert max(reads) <= chunk
    assert sum(reads) == 20


@given(wanted=st.lists(st.lists(st.integers(0, 11), unique=True, max_size=12), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_queries_that_share_candidates_get_the_scores_of_single_ones_and_read_each_row_once(
    wanted: list[list[int]],
) -> None:
    stored = random_qkv(12, (1, 2, 6, 4), 4)
    queries = [random_qkv(1, (1, 2, 6, 4), 10 + number) for number in range(len(wanted))]
    arrays = {name: t.half().numpy() for name, t in (("q", stored.q), ("k", stored.k), ("v", stored.v))}
    reads: list[int] = []

    def read(rows: list[int]) -> dict[str, np.ndarray]:
        reads.extend(rows)
        return {name: array[rows] for name, array in arrays.items()}

    together = score_rows(queries, wanted, read, arithmetic=ScoringPrecision(torch.float32, 8 << 20, 5))  # type: ignore[arg-type]
    assert sorted(reads) == sorted({row for rows in wanted for row in rows})
    for query, rows, scores in zip(queries, wanted, together.scores, strict=True):
        np.testing.assert_allclose(scores, score_rows([query], [rows], read).scores[0], atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("readout", [LINEAR, Readout(root=True, floor=1e-5)])
def test_attention_in_float16_stays_far_below_the_tolerance_of_a_gpu(readout: Readout) -> None:
    query, stored = random_qkv(1, (2, 4, 64, 40), 3), random_qkv(30, (2, 4, 64, 40), 4)
    arrays = {name: t.half().numpy() for name, t in (("q", stored.q), ("k", stored.k), ("v", stored.v))}

    def scores(dtype: torch.dtype, hot: HotRows | None = None) -> np.ndarray:
        how = ScoringPrecision(dtype, 8 << 20, 7)
        read = lambda rows: {name: array[list(rows)] for name, array in arrays.items()}  # noqa: E731
        return score_rows([query], [range(30)], read, readout=readout, hot=hot, arithmetic=how).scores[0]

    exact, hot = scores(torch.float32), HotRows(HotTier(1 << 24), "style", torch.float16)
    for _ in range(2):  # the second time from memory, where outputs are float16 too
        halved = scores(torch.float16, hot)
        assert 0 < np.abs(halved - exact).max() < 2e-4


def test_equal_scores_are_ordered_by_id() -> None:
    scores, ids = np.array([0.5, 0.9, 0.5, 0.5], np.float32), np.array([7, 3, 2, 5])
    assert ids[closest_first(scores, ids)].tolist() == [3, 2, 5, 7]
    assert ids[closest_first(scores, ids, "mse")].tolist() == [2, 5, 7, 3]
