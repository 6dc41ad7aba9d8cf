"""Searches of an index without some tensors: the same scores, kept for the next time, and never a wrong one."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.parsing import parse_bytes
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.tensors.cache import cache_size
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.errors import CancelledError, UsageError
from retrieval.indexing.build import build_index
from retrieval.indexing.fill import fill_index
from retrieval.progress import Cancellation, Progress
from retrieval.search.engine import Engine
from retrieval.search.results import Results
from retrieval.settings import BuildSettings, EngineSettings
from tests.support.faults import flip_bit
from tests.support.ranking import assert_same_ranking
from tests.support.sample_index import RUN, Contents, paint

LAZY = replace(RUN, attention="lazy")
MODES = ["style", "instance"]
COUNT = 10


pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    paint(tmp_path / "photos", range(COUNT))
    return tmp_path / "photos"


@pytest.fixture
def codec() -> str | None:
    """The model's own, with which both modes share their tensors; a test may name another."""
    return None


@pytest.fixture
def eager(photos: Path, codec: str | None) -> Path:
    build_index(photos, photos.parent / "eager.diffsim", model="cells", modes=MODES, codec=codec, run=RUN)
    return photos.parent / "eager.diffsim"


@pytest.fixture
def lazy(photos: Path, codec: str | None) -> Path:
    build_index(photos, photos.parent / "lazy.diffsim", model="cells", modes=MODES, codec=codec, run=LAZY)
    return photos.parent / "lazy.diffsim"


def search(index: Path, query: Path, mode: str = "style", max_cache: int = 10**7, **choices: Any) -> Results:
    settings = EngineSettings(device="cpu", max_cache=max_cache)
    return Engine.open(index, settings).search(query, mode, **{"k": 100, **choices})


def note_of(results: Results, kind: str) -> str:
    """The message of the note of that kind; nothing where there is none."""
    return next((note.message for note in results.notes if note.kind == kind), "")


def counts(results: Results) -> tuple[int, int, int]:
    return results.computed, results.cached, results.left_out


def files_of(index: Path) -> list[Path]:
    return sorted(path for path in Layout(index).cache.rglob("*") if path.is_file())


@pytest.mark.parametrize(("codec", "stored"), [("qkv-float16", MODES), (None, MODES[:1])])
def test_a_lazy_index_answers_as_an_eager_one_and_keeps_what_it_computed(
    photos: Path, eager: Path, lazy: Path, stored: list[str]
) -> None:
    """A mode that shares the tensors of another finds those that searches with the other one computed."""
    query = photos / "003.png"
    for mode in MODES:
        for choices, number in (({"candidates": 4, "k": 4}, 4), ({}, COUNT), ({"exhaustive": True}, COUNT)):
            expected = search(eager, query, mode, **choices)
            assert counts(expected) == (0, 0, 0)
            steps: list[Progress] = []
            first = search(lazy, query, mode, on_progress=steps.append, **choices)
            known = {4: 0, COUNT: 4}[number] if choices != {"exhaustive": True} else COUNT
            known = known if mode in stored else number
            assert_same_ranking(first, expected)
            assert [r.coarse_rank for r in first] == [r.coarse_rank for r in expected]
            assert counts(first) == (number - known, known, 0)
            assert first.timing_ms["compute"] > 0 if number - known else first.timing_ms["compute"] == 0
            if number - known:
                assert steps[0] == Progress("compute", 0, number - known)
                assert steps[-1] == Progress("compute", number - known, number - known)
                assert f"the {mode} tensors of {number - known} candidates" in note_of(first, "computed")
            again = search(lazy, query, mode, **choices)
            assert_same_ranking(again, expected)
            assert counts(again) == (0, number, 0)
            assert note_of(again, "computed") == ""
    assert_same_ranking(search(lazy, query, rerank=False), search(eager, query, rerank=False))
    assert Engine.open(lazy).info()["cache"]["tensors"] == len(stored) * COUNT == cache_size(Layout(lazy))[0]
    assert Engine.open(lazy).info()["coverage"] == {"style": 0, "instance": 0}
    shutil.rmtree(Layout(lazy).cache)
    assert counts(search(lazy, query)) == (COUNT, 0, 0)


def test_the_embedded_model_gives_the_same_scores_either_way(gallery: Path, index: Path, tmp_path: Path) -> None:
    from retrieval.encoding.loaded_models import load_models

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrieval.search.engine.load_models", load_models)
        lazy = tmp_path / "lazy.diffsim"
        build_index(gallery, lazy, model="cells", run=BuildSettings(attention="lazy"), load=load_models)
        query = sorted(gallery.rglob("*.png"))[9]
        for mode in ("style", "instance", "semantic"):
            expected, found = search(index, query, mode), search(lazy, query, mode)
            assert len(expected) == 40
            assert counts(found) == ((40, 0, 0) if mode == "style" else (0, 40, 0)), "the modes share their tensors"
            assert_same_ranking(found, expected, atol=1e-5, whole=True)
            assert_same_ranking(search(lazy, query, mode), found, whole=True)


@pytest.mark.parametrize("codec", ["hidden-float16", "hidden-int8"])
def test_every_codec_is_computed_on_demand_filled_and_added_to(photos: Path, tmp_path: Path, codec: str) -> None:
    indexes = {name: tmp_path / f"{name}.diffsim" for name in ("eager", "lazy", "grown")}
    for name, modes, run in (("eager", MODES, RUN), ("lazy", MODES, LAZY), ("grown", MODES[:1], RUN)):
        build_index(photos, indexes[name], model="cells", modes=modes, run=run, codec=codec)
    build_index(photos, indexes["grown"], modes=MODES[1:], run=RUN)
    assert Contents.of(indexes["grown"]).differences(Contents.of(indexes["eager"])) == []
    for query in sorted(photos.iterdir())[::4]:
        for mode in MODES:
            expected = search(indexes["eager"], query, mode)
            for name in ("grown", "lazy"):
                assert_same_ranking(search(indexes[name], query, mode), expected, whole=True)
    before = read_current(Layout(indexes["lazy"]))
    with pytest.raises(UsageError, match="no such file"):
        fill_index(indexes["lazy"], order=["like:nosuch.png"], run=RUN)
    assert read_current(Layout(indexes["lazy"])) == before, "nothing was taken over yet"
    report = fill_index(indexes["lazy"], run=RUN)
    assert (report.adopted, report.completed) == (COUNT, 0), "both modes share their tensors"
    assert Contents.of(indexes["lazy"]).differences(Contents.of(indexes["eager"])) == []


def test_a_search_that_is_cancelled_keeps_what_it_computed(
    photos: Path, lazy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.search.scoring_context.batch_size", lambda settings, run: 2)
    cancel, steps = Cancellation(), list[Progress]()

    def stop_after_two_batches(step: Progress) -> None:
        steps.append(step)
        if step.done == 4:
            cancel.request()

    with pytest.raises(CancelledError, match="stopped"):
        search(lazy, photos / "003.png", on_progress=stop_after_two_batches, cancel=cancel)
    assert [step.done for step in steps] == [0, 2, 4]
    assert counts(search(lazy, photos / "003.png")) == (COUNT - 4, 4, 0)
    with pytest.raises(CancelledError):
        list(Engine.open(lazy).search_many([photos / "003.png"], cancel=cancel))


def test_a_damaged_or_foreign_cached_file_is_computed_anew(photos: Path, eager: Path, lazy: Path) -> None:
    query = photos / "003.png"
    expected = search(eager, query)
    search(lazy, query)
    files = files_of(lazy)
    assert len(files) == COUNT
    flip_bit(files[0], 8 * (files[0].stat().st_size // 2))
    files[1].write_bytes(b"")
    files[2].write_bytes(files[3].read_bytes())
    files[4].unlink()
    found = search(lazy, query)
    assert_same_ranking(found, expected, whole=True)
    assert counts(found) == (4, COUNT - 4, 0)
    assert counts(search(lazy, query)) == (0, COUNT, 0)


def test_files_that_are_gone_or_have_changed_are_left_out_with_a_note(photos: Path, eager: Path, lazy: Path) -> None:
    query = shutil.copy(photos / "003.png", photos.parent / "query.png")
    expected = {Path(r.path).name: r for r in search(eager, Path(query))}
    search(lazy, Path(query), candidates=1, k=1)  # 003.png itself
    (photos / "000.png").unlink()
    (photos / "003.png").unlink()
    shutil.copy(photos / "001.png", photos / "002.png")
    paint(photos, [5], seed=9)
    os.utime(photos / "005.png", ns=(0, 0))
    (photos / "007.png").write_bytes(b"no image")
    content = bytearray((photos / "008.png").read_bytes())
    content[-1] ^= 1  # the same picture in other bytes: its SHA-256 is another
    (photos / "008.png").write_bytes(content)
    for _ in range(2):
        found = search(lazy, Path(query))
        assert found.left_out == 5
        kept = {Path(r.path).name: r for r in found}
        assert set(kept) == {"001.png", "003.png", "004.png", "006.png", "009.png"}, "003.png is in the cache"
        assert_same_ranking(found, sorted((expected[name] for name in kept), key=lambda r: r.rank), whole=True)
        assert {name: r.coarse_rank for name, r in kept.items()} == {n: expected[n].coarse_rank for n in kept}
        assert [r.rank for r in found] == [1, 2, 3, 4, 5]
        assert "5 candidates are left out" in note_of(found, "left_out")
    assert found.to_dict()["left_out"] == 5
    assert len(search(lazy, Path(query), rerank=False)) == COUNT


def test_a_budget_that_is_too_small_or_none_computes_again(photos: Path, eager: Path, lazy: Path) -> None:
    query = photos / "003.png"
    expected = search(eager, query)
    search(lazy, query)
    size = cache_size(Layout(lazy))[1] // COUNT
    for budget, kept, note in ((0, 0, False), (5 * size + COUNT, 5, False), (10, 0, True)):
        shutil.rmtree(Layout(lazy).cache, ignore_errors=True)
        for _ in range(2):
            found = search(lazy, query, max_cache=budget)
            assert_same_ranking(found, expected, whole=True)
            assert cache_size(Layout(lazy))[1] <= budget
        assert found.computed >= COUNT - kept
        assert ("could not be kept" in note_of(found, "unkept")) == note, budget


def test_an_index_that_may_not_be_written_is_searched_without_keeping(photos: Path, eager: Path, lazy: Path) -> None:
    """Root may write anywhere, so a file stands in the folder's way."""
    query = photos / "003.png"
    Layout(lazy).cache.write_bytes(b"")
    for _ in range(2):
        found = search(lazy, query)
        assert_same_ranking(found, search(eager, query), whole=True)
        assert counts(found) == (COUNT, 0, 0)
        assert f"{COUNT} of them could not be kept" in note_of(found, "unkept")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_read_only_index_is_searched_without_keeping(photos: Path, lazy: Path) -> None:
    for folder in (lazy, *(path for path in lazy.rglob("*") if path.is_dir())):
        folder.chmod(0o555)
    found = search(lazy, photos / "003.png")
    for folder in (lazy, *(path for path in lazy.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    assert counts(found) == (COUNT, 0, 0)


def test_searches_at_once_get_the_same_answers(photos: Path, eager: Path, lazy: Path) -> None:
    queries = sorted(photos.iterdir())
    expected = [search(eager, query) for query in queries]
    engine = Engine.open(lazy, EngineSettings(device="cpu"))
    with ThreadPoolExecutor(4) as pool:
        one = list(pool.map(lambda query: engine.search(query, "style", k=100), queries))
        several = list(pool.map(lambda query: search(lazy, query), queries))
    for found, again, wanted in zip(one, several, expected, strict=True):
        assert_same_ranking(found, wanted, whole=True)
        assert_same_ranking(again, wanted, whole=True)
    assert cache_size(Layout(lazy))[0] == COUNT


def test_a_fill_takes_over_what_searches_computed(
    photos: Path, eager: Path, lazy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = photos / "003.png"
    opened = Engine.open(lazy)
    search(lazy, query, candidates=4, k=4)
    (photos / "000.png").unlink()
    (photos / "003.png").rename(photos / "three.png")  # kept all the same: the cache knows its tensors
    shutil.copy(photos / "three.png", query)
    batches: list[int] = []
    begin = LoadedModels.begin

    def noting(self: LoadedModels, batch: Any, *rest: Any) -> Any:
        batches.append(len(batch))
        return begin(self, batch, *rest)

    monkeypatch.setattr(LoadedModels, "begin", noting)
    report = fill_index(lazy, modes=["style"], run=RUN)
    assert (report.adopted, report.completed) == (4, sum(batches))
    assert report.completed + report.incomplete == COUNT - 4
    assert cache_size(Layout(lazy)) == (0, 0)
    whole, filled = Contents.of(eager).tensors["style/h"], IndexReader(lazy)
    rows = np.flatnonzero(filled.has_tensors("style"))
    assert [row.tobytes() for row in filled.attention("style", rows.tolist())["h"]] == [whole[row] for row in rows]
    assert counts(search(lazy, query))[0] == 0
    assert_same_ranking(opened.search(query, "style", k=100), search(lazy, query))  # the generation it opened


def test_sizes_are_read_as_people_write_them() -> None:
    assert [parse_bytes(t) for t in ("2GB", "500 mb", "1.5K", "0", "17")] == [2 * 10**9, 5 * 10**8, 1500, 0, 17]
    for wrong in ("", "GB", "-1", "2 gigs", "1e9"):
        with pytest.raises(UsageError, match="is not a size"):
            parse_bytes(wrong)
    with pytest.raises(UsageError, match="max cache must be at least 0"):
        EngineSettings(max_cache=-1)
