"""Memory that runs out during a search: cached candidates make room, and the search is tried once more."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cli.advice import sentence_of
from retrieval import Engine, EngineSettings, build_index
from retrieval.errors import MemoryFullError
from retrieval.scoring.aas import PreparedQuery
from retrieval.search import reranking
from retrieval.search.results import Results
from tests.support.commands import failed, run_here
from tests.support.ranking import assert_same_ranking
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import TinyExtractor

Shortage = Callable[[], Exception]
SHORTAGES: list[Shortage] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 256.00 MiB"),
    lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    MemoryError,
]
PARTS = [(reranking, "score_queries"), (PreparedQuery, "of"), (TinyExtractor, "extract")]


@pytest.fixture
def index(tmp_path: Path, tiny: None) -> Path:
    paint(tmp_path / "photos", range(6))
    build_index(tmp_path / "photos", tmp_path / "x.diffsim", model="cells", modes=["style"], encoders={}, run=RUN)
    return tmp_path / "x.diffsim"


def scarce(monkeypatch: pytest.MonkeyPatch, part: tuple[object, str], shortage: Shortage, times: int) -> list[int]:
    """Let a part of a search run out of memory so many times; the list gets a number for each."""
    owner, name = part
    whole, failures = getattr(owner, name), []

    def short(*words: object, **named: object) -> object:
        if len(failures) < times:
            failures.append(1)
            raise shortage()
        return whole(*words, **named)

    monkeypatch.setattr(owner, name, short)
    return failures


@pytest.mark.parametrize("shortage", SHORTAGES, ids=["CUDA", "cuDNN", "main memory"])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part[1])
def test_a_search_is_tried_once_more_without_cached_candidates(
    part: tuple[object, str], shortage: Shortage, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.open(index, EngineSettings(device="cpu", memory=1 << 30))
    query = sorted((index.parent / "photos").iterdir())[0]

    def search() -> Results:
        return engine.search(query, exhaustive=False)

    plain = search()
    held = engine._answerer._memory_cache.nbytes
    assert held
    failures = scarce(monkeypatch, part, shortage, times=1)
    assert_same_ranking(search(), plain, whole=True)
    assert len(failures) == 1
    assert engine._answerer._memory_cache.limit == held // 2
    failures = scarce(monkeypatch, part, shortage, times=2)
    with pytest.raises(MemoryFullError) as caught:
        search()
    assert len(failures) == 2
    assert "fewer queries at once" in sentence_of(caught.value)
    assert_same_ranking(search(), plain, whole=True)


def test_the_command_ends_with_5_and_one_sentence(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = sorted((index.parent / "photos").iterdir())[0]
    scarce(monkeypatch, PARTS[0], MemoryError, times=100)
    assert "does not hold what a search computes" in failed(run_here("diffsim-search", query, cwd=index.parent), 5)


def test_memory_that_runs_out_anywhere_else_is_no_traceback(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scarce(monkeypatch, (Engine, "info"), MemoryError, times=1)
    assert "the memory of this machine" in failed(run_here("diffsim-index", "info", cwd=index.parent), 5)
