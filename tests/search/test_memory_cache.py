"""Candidates kept in memory: within the budget, and never another score."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from retrieval import BuildSettings, Engine, EngineSettings, build_index
from retrieval.scoring.aas import QKV
from retrieval.search.memory_cache import HotRow, HotRows, HotTier, kept_bytes
from retrieval.search.reranking import score_rows

SHAPE = (2, 3, 8, 4)
Ranked = Sequence[tuple[int, float]]


def row_of(number: int) -> HotRow:
    return HotRow(*(torch.full((4,), float(number)) for _ in range(4)))  # 64 bytes


def test_what_was_used_longest_ago_goes_first() -> None:
    tier = HotTier(3 * 64)
    for number in range(3):
        tier.put("style", number, row_of(number))
    assert tier.get("style", 0) is not None
    tier.put("style", 3, row_of(3))
    assert [number for number in range(4) if tier.get("style", number) is not None] == [0, 2, 3]
    assert tier.get("instance", 0) is None
    assert tier.nbytes == 3 * 64


def test_replacing_a_row_does_not_count_it_twice() -> None:
    tier = HotTier(2 * 64)
    for _ in range(5):
        tier.put("style", 0, row_of(0))
    assert (len(tier), tier.nbytes) == (1, 64)


def test_a_row_larger_than_the_budget_is_not_kept() -> None:
    tier = HotTier(63)
    tier.put("style", 0, row_of(0))
    assert len(tier) == 0


class Gallery:
    """Thirty candidates in memory, and which of them were read."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.query = QKV(*(torch.randn((1, *SHAPE), generator=generator) for _ in range(3)))
        self.stored = {name: torch.randn((30, *SHAPE), generator=generator).half().numpy() for name in "qkv"}
        self.reads: list[list[int]] = []

    def read(self, rows: Sequence[int]) -> dict[str, NDArray[np.float16]]:
        self.reads.append(list(rows))
        return {name: array[list(rows)] for name, array in self.stored.items()}

    def scores(self, rows: Sequence[int], hot: HotRows | None = None) -> NDArray[np.float32]:
        return score_rows([self.query], [list(rows)], self.read, hot=hot).scores[0]


@pytest.mark.parametrize("budget", [1, 3000, 1 << 20])
def test_scores_do_not_depend_on_what_is_held(budget: int) -> None:
    gallery = Gallery()
    plain = gallery.scores(range(30))
    hot = HotRows(HotTier(budget), "style", torch.float16)
    for rows in (range(20), range(29, -1, -1), [3, 28, 7]):
        np.testing.assert_allclose(gallery.scores(rows, hot), plain[list(rows)], atol=1e-6)
        assert hot.tier.nbytes <= budget
    if budget == 1 << 20:
        assert sorted(gallery.reads[-1]) == list(range(20, 30))  # the last search read nothing


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_memory_that_is_full_costs_what_is_held_and_no_result(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*tensors: torch.Tensor) -> HotRow:
        raise error

    gallery = Gallery()
    plain = gallery.scores(range(30))
    hot = HotRows(HotTier(1 << 20), "style", torch.float16)
    gallery.scores(range(15), hot)
    held = hot.tier.nbytes
    with monkeypatch.context() as memory:
        memory.setattr("retrieval.search.memory_cache.HotRow", full)
        np.testing.assert_allclose(gallery.scores(range(30), hot), plain, atol=1e-6)
        assert (len(hot.tier), hot.tier.nbytes, hot.tier.budget) == (0, 0, held // 2)
    np.testing.assert_allclose(gallery.scores(range(30), hot), plain, atol=1e-6)
    assert 0 < hot.tier.nbytes <= held // 2


def test_no_other_error_is_taken_for_full_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*tensors: torch.Tensor) -> HotRow:
        raise RuntimeError("an illegal instruction")

    monkeypatch.setattr("retrieval.search.memory_cache.HotRow", wrong)
    with pytest.raises(RuntimeError, match="illegal"):
        Gallery().scores(range(3), HotRows(HotTier(1 << 20), "style", torch.float16))


def test_the_candidates_of_a_search_fit_where_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = 2 * 8 * 256 * 160  # of an image's queries in SD 1.5 at U_0: branches, heads, tokens, head_dim
    free: dict[str, int | None] = {"free": 1 << 40}
    monkeypatch.setattr("retrieval.search.memory_cache.available_memory", lambda device: free["free"])
    for kept in (2, 4):  # bytes of each of Q, K and V; outputs are float32
        assert kept_bytes(torch.device("cpu")) >= 200 * numbers * (3 * kept + 4)
    assert kept_bytes(torch.device("cuda")) == 1 << 38
    free["free"] = 1 << 30
    assert kept_bytes(torch.device("cpu")) == kept_bytes(torch.device("cuda")) == 1 << 28
    free["free"] = None
    assert kept_bytes(torch.device("cpu")) >= 1 << 30


def assert_same_ranking(found: Ranked, expected: Ranked) -> None:
    """Scores are within 1e-5, and ids the same but where what stands in a place scores within 1e-5 of what stood there.

    Bits depend on the number of threads and the batch, so that such neighbours may change places, also across the end.
    """
    np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], atol=1e-5, rtol=0)
    scores, last = dict(expected), expected[-1][1]
    for (number, _), (other, score) in zip(found, expected, strict=True):
        if number != other:
            assert abs(scores.get(number, last) - score) <= 1e-5, f"{number} stands where {other} stood"
    assert len({number for number, _ in found}) == len(found)


def test_rankings_differ_by_near_ties_alone() -> None:
    expected = [(7, 0.9), (8, 0.5), (9, 0.500004), (2, 0.1)]
    assert_same_ranking([(7, 0.9), (9, 0.500001), (8, 0.5), (3, 0.100003)], expected)
    for wrong in ([(8, 0.9), (7, 0.5), (9, 0.5), (2, 0.1)], [(7, 0.9), (8, 0.5), (9, 0.5), (2, 0.2)]):
        with pytest.raises(AssertionError):
            assert_same_ranking(wrong, expected)
    with pytest.raises(AssertionError):
        assert_same_ranking([(6, 0.9), *expected[1:]], expected)


@pytest.mark.parametrize("codec", ["qkv-float16", "hidden-int8"])
def test_no_optimisation_changes_a_result(gallery: Path, tmp_path: Path, codec: str) -> None:
    """Any batch, threads, segments, memory, and a second search; see :func:`assert_same_ranking`."""
    files = sorted(path for path in gallery.rglob("*") if path.is_file())
    queries = files[::17]

    def results(name: str, run: BuildSettings, engine: EngineSettings, threads: int) -> list[list[tuple[int, float]]]:
        index = tmp_path / f"{name}.diffsim"
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            build_index(gallery, index, model="mini", codec=codec, run=run)
            opened = Engine.open(index, engine)
            for mode in opened.modes:  # leaves something in memory
                opened.search(queries[0], mode, candidates=9, k=9)
            found = [opened.search(q, mode, candidates=20, k=10) for q in queries for mode in opened.modes]
        finally:
            torch.set_num_threads(before)
        return [[(result.id, result.score or 0.0) for result in each] for each in found]

    plain = results("plain", BuildSettings(batch_size=1, workers=1), EngineSettings(memory=0), threads=1)
    variants = {
        "batch": (BuildSettings(batch_size=7, workers=3, segment_rows=7), EngineSettings(memory=0), 1),
        "memory": (BuildSettings(batch_size=16), EngineSettings(), 2),
        "tight": (BuildSettings(batch_size=3), EngineSettings(memory=200_000), 1),
    }
    for name, (run, engine, threads) in variants.items():
        for expected, found in zip(plain, results(name, run, engine, threads), strict=True):
            assert_same_ranking(found, expected)
