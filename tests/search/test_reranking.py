"""The re-ranker: every row gets its own score, from whatever source, in any order, chunk and step."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.devices.precision import SCORING_PRECISION, ScoringPrecision
from retrieval.devices.threads import ALONE, CoreThreads
from retrieval.encoding.stored_tensors import stored_qkv
from retrieval.scoring.aas import QKV, Comparison, aligned_attention_scores
from retrieval.search.reranking import Part, QueryTensors, rerank
from retrieval.search.tensors.chunks import Chunk, StoredChunk
from retrieval.search.tensors.memory_cache import MemoryCache, ModeCache
from retrieval.search.tensors.tensor_sources import MemoryTensors, StoredTensors
from retrieval.types import LINEAR, Directions, Readout
from tests.slices import examples
from tests.support.reranking import scores_of
from tests.support.tensors import half_arrays, random_qkv

SHAPE = (1, 2, 6, 4)
CPU = torch.device("cpu")
ROOT = Readout(root=True, floor=1e-3)


class Reads:
    """Stored arrays, and which rows were read together."""

    def __init__(self, stored: QKV) -> None:
        self.arrays = half_arrays(stored)
        self.rows: list[list[int]] = []

    def __call__(self, rows: Sequence[int]) -> dict[str, NDArray[np.float16]]:
        self.rows.append(list(rows))
        return {name: array[list(rows)] for name, array in self.arrays.items()}

    @property
    def qkv(self) -> QKV:
        return QKV(*(torch.from_numpy(self.arrays[name]) for name in "qkv"))


@given(
    st.permutations(list(range(20))),
    st.sampled_from([1, 3, 7, 64]),
    st.sampled_from([1, 2, 5, 64]),
    st.sampled_from([ALONE, CoreThreads(3)]),
)
@settings(max_examples=examples(20), deadline=None)
def test_each_row_gets_its_own_score_in_any_order_chunk_step_and_thread(
    rows: list[int], chunk: int, step: int, threads: CoreThreads
) -> None:
    query, read = random_qkv(1, SHAPE, 3), Reads(random_qkv(20, SHAPE, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrieval.search.tensors.tensor_sources.CHUNK_ROWS", chunk)
        patch.setitem(SCORING_PRECISION, "cpu", ScoringPrecision(torch.float32, 8 << 20, step))
        scores = scores_of([query], [rows], read, threads=threads)[0]
    expected = aligned_attention_scores(query, read.qkv).numpy()[rows]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert max(len(each) for each in read.rows) <= chunk
    assert [row for each in read.rows for row in each] == rows


@given(wanted=st.lists(st.lists(st.integers(0, 11), unique=True, max_size=12), min_size=1, max_size=4))
@settings(max_examples=examples(30), deadline=None)
def test_queries_that_share_candidates_get_the_scores_of_single_ones_and_read_each_row_once(
    wanted: list[list[int]],
) -> None:
    read = Reads(random_qkv(12, SHAPE, 4))
    queries = [random_qkv(1, SHAPE, 10 + number) for number in range(len(wanted))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SCORING_PRECISION, "cpu", ScoringPrecision(torch.float32, 8 << 20, 5))
        together = scores_of(queries, wanted, read)
    assert sorted(row for each in read.rows for row in each) == sorted({row for rows in wanted for row in rows})
    for query, rows, scores in zip(queries, wanted, together, strict=True):
        np.testing.assert_allclose(scores, scores_of([query], [rows], read)[0], atol=1e-6)


@pytest.mark.parametrize("readout", [LINEAR, Readout(root=True, floor=1e-5)])
def test_attention_in_float16_stays_far_below_the_tolerance_of_a_gpu(
    readout: Readout, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, read = random_qkv(1, (2, 4, 64, 40), 3), Reads(random_qkv(30, (2, 4, 64, 40), 4))
    monkeypatch.setitem(SCORING_PRECISION, "cpu", ScoringPrecision(torch.float32, 8 << 20, 7))

    def scores(dtype: torch.dtype, cache: ModeCache | None = None) -> NDArray[np.float32]:
        return scores_of([query], [range(30)], read, Comparison(readout=readout, precision=dtype), cache)[0]

    exact, cache = scores(torch.float32), MemoryCache(1 << 24).of_mode("style", torch.float16)
    for _ in range(2):  # the second time from memory, where outputs are float16 too
        halved = scores(torch.float16, cache)
        assert 0 < np.abs(halved - exact).max() < 2e-4


def test_outputs_are_compared_as_the_mode_reads_them() -> None:
    query, read = random_qkv(1, SHAPE, 1), Reads(random_qkv(9, SHAPE, 2))
    scores = scores_of([query], [range(9)], read, Comparison(readout=ROOT))[0]
    expected = aligned_attention_scores(query, read.qkv, Comparison(readout=ROOT))
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-6)
    assert not np.allclose(scores, aligned_attention_scores(query, read.qkv).numpy(), rtol=1e-3)


@pytest.mark.parametrize("limit", [1, 12, 10_000])
def test_queries_of_the_same_rows_are_scored_at_once_and_get_the_scores_of_single_ones(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from memory, where regions copy the keys and values of candidates alone."""
    monkeypatch.setattr("retrieval.search.reranking.TOKENS_AT_ONCE", limit)
    read, cache = Reads(random_qkv(9, SHAPE, 2)), MemoryCache(1 << 24).of_mode("style", torch.float16)
    mask = torch.tensor([0.0, 1, 2, 0, 1, 1])
    ways: list[Directions | None] = ["query_to_candidate", "query_to_candidate", None]
    asked = [
        QueryTensors(random_qkv(1, SHAPE, 20 + number), list(range(9)), way, mask if number == 1 else None)
        for number, way in enumerate(ways)
    ]
    stored = StoredTensors(range(9), read, stored_qkv, CPU, cache=cache)
    rerank(asked, [stored])
    for some in (asked, asked[:2]):
        found = rerank(some, [MemoryTensors(cache.find(range(9)))])
        for query, scores in zip(some, found.scores, strict=True):
            how = Comparison(directions=query.directions or "both")
            expected = aligned_attention_scores(query.qkv, read.qkv, how, query_mask=query.mask)
            assert scores == pytest.approx(dict(enumerate(expected.tolist())), abs=1e-6)


class Given:
    """A source of chunks that are at hand."""

    def __init__(self, part: Part, chunks: Sequence[Chunk]) -> None:
        self.part, self._chunks = part, chunks

    def chunks(self) -> Iterator[Chunk]:
        return iter(self._chunks)


def test_every_source_gives_its_part_and_rows_that_none_has_get_no_score() -> None:
    query, read = random_qkv(1, SHAPE, 1), Reads(random_qkv(9, SHAPE, 2))

    def chunk(*rows: int) -> StoredChunk:
        return StoredChunk(rows, {name: torch.from_numpy(array) for name, array in read(rows).items()}, stored_qkv)

    sources = Given("read", [chunk(3, 1), chunk(0)]), Given("read", []), Given("compute", [chunk(8)])
    found = rerank([QueryTensors(query, [8, 0, 7, 1, 3]), QueryTensors(query, [1])], sources)
    expected = aligned_attention_scores(query, read.qkv).tolist()
    assert found.scores[0] == pytest.approx({row: expected[row] for row in (3, 1, 0, 8)}, abs=1e-6)
    assert found.scores[1] == pytest.approx({1: expected[1]}, abs=1e-6)
    assert list(found.timing_ms) == ["read", "rerank", "compute"]
    assert all(spent >= 0 for spent in found.timing_ms.values())


def test_a_chunk_is_read_while_the_former_is_scored_and_one_before_the_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than one chunk ahead: each takes up to 100 MB."""
    monkeypatch.setattr("retrieval.search.tensors.tensor_sources.CHUNK_ROWS", 2)
    read = Reads(random_qkv(7, SHAPE, 2))
    source = StoredTensors(range(7), read, stored_qkv, CPU)
    source.begin()
    source.begin()  # once is enough
    found = []
    for chunk in source.chunks():
        found.append(list(chunk.rows))
        assert len(read.rows) <= len(found) + 1
    assert found == [[0, 1], [2, 3], [4, 5], [6]] == read.rows


def test_an_error_of_reading_is_raised_where_its_chunk_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.search.tensors.tensor_sources.CHUNK_ROWS", 2)
    stored = Reads(random_qkv(7, SHAPE, 2))

    def read(rows: Sequence[int]) -> dict[str, NDArray[np.float16]]:
        if 4 in rows:
            raise OSError("the disk is gone")
        return stored(rows)

    chunks = StoredTensors(range(7), read, stored_qkv, CPU).chunks()
    assert [list(next(chunks).rows) for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(OSError, match="the disk is gone"):
        next(chunks)


def test_a_chunk_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORING_PRECISION, "cpu", ScoringPrecision(torch.float32, 8 << 20, 7, chunk_bytes=1000))
    for row_bytes, rows in ((300, 3), (5000, 1), (0, 7)):
        read = Reads(random_qkv(7, SHAPE, 2))
        chunks = list(StoredTensors(range(7), read, stored_qkv, CPU, row_bytes).chunks())
        assert max(len(chunk.rows) for chunk in chunks) == rows
