"""Candidates kept in memory: within the budget, and never another score."""

from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval import BuildSettings, Engine, EngineSettings, build_index
from retrieval.aas import QKV
from retrieval.hot import HotRow, HotRows, HotTier
from retrieval.rerank import score_rows

SHAPE = (2, 3, 8, 4)


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


@pytest.mark.parametrize("budget", [1, 3000, 1 << 20])
def test_scores_do_not_depend_on_what_is_held(budget: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query = QKV(*(torch.randn((1, *SHAPE), generator=generator) for _ in range(3)))
    stored = {name: torch.randn((30, *SHAPE), generator=generator).half().numpy() for name in "qkv"}
    reads: list[list[int]] = []

    def read(rows: list[int]) -> dict[str, np.ndarray]:
        reads.append(list(rows))
        return {name: array[rows] for name, array in stored.items()}

    plain = score_rows([query], [range(30)], read).scores[0]  # type: ignore[arg-type]
    hot = HotRows(HotTier(budget), "style", torch.float16)
    for rows in (range(20), range(29, -1, -1), [3, 28, 7]):
        found = score_rows([query], [list(rows)], read, hot=hot).scores[0]  # type: ignore[arg-type]
        np.testing.assert_allclose(found, plain[list(rows)], atol=1e-6)
        assert hot.tier.nbytes <= budget
    if budget == 1 << 20:
        assert sorted(reads[-1]) == list(range(20, 30))  # the last search read nothing


@pytest.mark.parametrize("codec", ["qkv-float16", "hidden-int8"])
def test_no_optimisation_changes_a_result(gallery: Path, tmp_path: Path, codec: str) -> None:
    """Ids and order are equal, scores within 1e-5: any batch, threads, segments, memory, and a second search."""
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
            assert [number for number, _ in found] == [number for number, _ in expected]
            np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], atol=1e-5)
