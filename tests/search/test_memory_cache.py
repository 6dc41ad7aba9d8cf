"""Candidates kept in memory: within the limit, and never another score."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from retrieval import BuildSettings, Engine, EngineSettings, build_index
from retrieval.search.results import Result
from retrieval.search.tensors.memory_cache import (
    RECOVERY_SECONDS,
    CachedCandidate,
    MemoryCache,
    ModeCache,
    default_budget,
)
from tests.support.ranking import assert_same_ranking
from tests.support.reranking import scores_of
from tests.support.tensors import half_arrays, random_qkv

SHAPE = (2, 3, 8, 4)
SIZE = 64


def candidate(number: int) -> CachedCandidate:
    return CachedCandidate(*(torch.full((4,), float(number)) for _ in range(4)))  # SIZE bytes


def fill(cache: MemoryCache, count: int) -> int:
    """Put so many candidates, and return how many the cache holds."""
    for number in range(count):
        cache.put("style", number, candidate(number))
    return len(cache)


def test_the_least_recently_used_leaves_first() -> None:
    cache = MemoryCache(3 * SIZE)
    fill(cache, 3)
    assert cache.get("style", 0) is not None
    cache.put("style", 3, candidate(3))
    assert [number for number in range(4) if cache.get("style", number) is not None] == [0, 2, 3]
    assert cache.get("instance", 0) is None
    assert cache.nbytes == 3 * SIZE


def test_replacing_a_candidate_does_not_count_it_twice() -> None:
    cache = MemoryCache(2 * SIZE)
    for _ in range(5):
        cache.put("style", 0, candidate(0))
    assert (len(cache), cache.nbytes) == (1, SIZE)


def test_a_candidate_larger_than_the_budget_is_not_kept() -> None:
    assert fill(MemoryCache(SIZE - 1), 1) == 0


class Clock:
    """A clock that tests set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_shortage_halves_the_limit_until_memory_recovers() -> None:
    clock = Clock()
    cache = MemoryCache(64 * SIZE, clock)
    assert fill(cache, 100) == 64
    cache.shrink()
    assert (len(cache), cache.nbytes, cache.limit) == (0, 0, 32 * SIZE)
    assert fill(cache, 100) == 32
    clock.now += RECOVERY_SECONDS - 1
    assert cache.limit == 32 * SIZE
    clock.now += 1
    assert cache.limit == 64 * SIZE
    assert fill(cache, 100) == 64
    clock.now += 10**9
    assert cache.limit == cache.budget == 64 * SIZE


def test_a_limit_of_nothing_recovers_too_and_another_shortage_begins_anew() -> None:
    clock = Clock()
    cache = MemoryCache(64 * SIZE, clock)
    cache.shrink()
    assert cache.limit == 0
    assert fill(cache, 3) == 0
    limits = []
    for _ in range(7):
        clock.now += RECOVERY_SECONDS
        limits.append(cache.limit // SIZE)
    assert limits == [2, 4, 8, 16, 32, 64, 64]
    assert fill(cache, 8) == 8
    cache.shrink()
    assert cache.limit == 4 * SIZE


class Gallery:
    """Thirty candidates, and which of them were read."""

    def __init__(self) -> None:
        self.query = random_qkv(1, SHAPE, 0)
        self.stored = half_arrays(random_qkv(30, SHAPE, 1))
        self.reads: list[list[int]] = []

    def read(self, rows: Sequence[int]) -> dict[str, NDArray[np.float16]]:
        self.reads.append(list(rows))
        return {name: array[list(rows)] for name, array in self.stored.items()}

    def scores(self, rows: Sequence[int], cache: ModeCache | None = None) -> NDArray[np.float32]:
        return scores_of([self.query], [list(rows)], self.read, cache=cache)[0]


@pytest.mark.parametrize("budget", [1, 3000, 1 << 20])
def test_scores_do_not_depend_on_what_is_held(budget: int) -> None:
    gallery = Gallery()
    plain = gallery.scores(range(30))
    cache = MemoryCache(budget).of_mode("style", torch.float16)
    for rows in (range(20), range(29, -1, -1), [3, 28, 7]):
        np.testing.assert_allclose(gallery.scores(rows, cache), plain[list(rows)], atol=1e-6)
        assert cache.cache.nbytes <= budget
    if budget == 1 << 20:
        assert sorted(gallery.reads[-1]) == list(range(20, 30))  # the last search read nothing


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_full_memory_costs_cached_candidates_and_no_result(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*tensors: torch.Tensor) -> CachedCandidate:
        raise error

    gallery = Gallery()
    plain = gallery.scores(range(30))
    cache = MemoryCache(1 << 20, Clock()).of_mode("style", torch.float16)
    gallery.scores(range(15), cache)
    held = cache.cache.nbytes
    with monkeypatch.context() as memory:
        memory.setattr("retrieval.search.tensors.memory_cache.CachedCandidate", full)
        np.testing.assert_allclose(gallery.scores(range(30), cache), plain, atol=1e-6)
        assert len(cache.cache) == 0
    assert f"{held} cached bytes were dropped" in caplog.text
    np.testing.assert_allclose(gallery.scores(range(30), cache), plain, atol=1e-6)
    assert 0 < cache.cache.nbytes <= cache.cache.limit == held // 2


def test_no_other_error_is_taken_for_full_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*tensors: torch.Tensor) -> CachedCandidate:
        raise RuntimeError("an illegal instruction")

    monkeypatch.setattr("retrieval.search.tensors.memory_cache.CachedCandidate", wrong)
    with pytest.raises(RuntimeError, match="illegal"):
        Gallery().scores(range(3), MemoryCache(1 << 20).of_mode("style", torch.float16))


def test_the_candidates_of_a_search_fit_where_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = 2 * 8 * 256 * 160  # of an image's queries in SD 1.5 at U_0: branches, heads, tokens, head_dim
    free: dict[str, int | None] = {"free": 1 << 40}
    monkeypatch.setattr("retrieval.search.tensors.memory_cache.available_memory", lambda device: free["free"])
    for kept in (2, 4):  # bytes of each of Q, K and V; outputs are float32
        assert default_budget(torch.device("cpu")) >= 200 * numbers * (3 * kept + 4)
    assert default_budget(torch.device("cuda")) == 1 << 38
    free["free"] = 1 << 30
    assert default_budget(torch.device("cpu")) == default_budget(torch.device("cuda")) == 1 << 28
    free["free"] = None
    assert default_budget(torch.device("cpu")) >= 1 << 30


@pytest.mark.parametrize("codec", ["qkv-float16", "hidden-int8"])
@pytest.mark.thorough
def test_no_optimisation_changes_a_result(gallery: Path, tmp_path: Path, codec: str) -> None:
    """Any batch, threads, segments, memory, and a second search, within the rounding of a score."""
    for style in ("ink", "oil"):
        shutil.copytree(gallery / style, tmp_path / "photos" / style, copy_function=os.link)
    queries = sorted((tmp_path / "photos").rglob("*.png"))[::7]

    def results(name: str, run: BuildSettings, engine: EngineSettings, threads: int) -> list[tuple[Result, ...]]:
        index = tmp_path / f"{name}.diffsim"
        torch.set_num_threads(threads)
        build_index(tmp_path / "photos", index, model="cells", codec=codec, run=run)
        opened = Engine.open(index, engine)
        for mode in opened.modes:  # leaves something in memory
            opened.search(queries[0], mode, candidates=5, k=5)
        return [opened.search(q, mode, candidates=10, k=8).results for q in queries for mode in opened.modes]

    plain = results("plain", BuildSettings(batch_size=1, workers=1), EngineSettings(memory=0), threads=1)
    variants = {
        "batch": (BuildSettings(batch_size=7, workers=3, segment_rows=7), EngineSettings(memory=0), 1),
        "memory": (BuildSettings(batch_size=16), EngineSettings(), 2),
        "tight": (BuildSettings(batch_size=3), EngineSettings(memory=200_000), 1),
    }
    for name, (run, engine, threads) in variants.items():
        for expected, found in zip(plain, results(name, run, engine, threads), strict=True):
            assert_same_ranking(found, expected, atol=1e-5)
