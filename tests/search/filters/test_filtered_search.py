"""A filtered search equals an exhaustive one whose results are filtered, with every kind of question and index."""

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import Box, Engine, EngineSettings, Filter, Query, build_index
from retrieval.errors import UsageError
from retrieval.settings import SearchChoices
from tests.support.commands import failed, run_here
from tests.support.sample_index import RUN, paint


def some(engine: Engine, share: float, seed: int) -> list[str]:
    paths = engine.paths()
    count = max(1, round(share * len(paths)))
    return [paths[row] for row in np.random.default_rng(seed).permutation(len(paths))[:count].tolist()]


@cache
def whole_order(engine: Engine, query: Path) -> list[list[tuple[str, float | None]]]:
    """Return all images and their scores: in the order of exact scores, and in that of the vectors."""
    exact, coarse = engine.search(query, exhaustive=True, k=40), engine.search(query, rerank=False, k=40)
    return [[(result.path, result.score) for result in found] for found in (exact, coarse)]


@settings(max_examples=12, deadline=None)
@given(share=st.sampled_from((0.0, 0.1, 0.5, 1.0)), k=st.sampled_from((1, 5, 40)), seed=st.integers(0, 99))
def test_equal_to_filtering_an_exhaustive_search(
    share: float, k: int, seed: int, engine: Engine, files: list[Path]
) -> None:
    allowed, query = some(engine, share, seed), files[seed % len(files)]
    where = Filter(glob=allowed)
    exact, coarse = ([found for found in every if found[0] in allowed][:k] for every in whole_order(engine, query))
    for choices in (SearchChoices(), SearchChoices(exhaustive=True)):
        found = engine.search(query, k=k, where=where, **choices)
        assert [(result.path, result.score) for result in found] == exact
        assert len(found) == min(k, len(allowed))
    by_vectors = engine.search(query, k=k, where=where, rerank=False)
    assert [(result.path, None) for result in by_vectors] == coarse


def test_every_kind_of_question_keeps_to_the_filter(engine: Engine, files: list[Path]) -> None:
    allowed = some(engine, 0.3, 1)
    where = Filter(glob=allowed)
    questions = [
        files[0],
        Query(files[:3], minus=files[3:4]),
        Query(files[:2], combine="max"),
        Query(files[:1], regions=[Box(0.1, 0.2, 0.5, 0.5)]),
    ]
    for _, found in engine.search_many(questions, k=40, where=where):
        assert {result.path for result in found} == set(allowed)
        assert found.filter == {"glob": allowed, "images": 12}
        assert found.to_dict()["filter"] == found.filter
    without = engine.search(allowed[0], k=40, where=where, exclude_copies=True)
    assert {result.path for result in without} == set(allowed[1:])


def test_a_filter_that_nothing_passes_finds_nothing_and_says_so(engine: Engine, files: list[Path]) -> None:
    for choices in (SearchChoices(), SearchChoices(exhaustive=True), SearchChoices(rerank=False)):
        found = engine.search(files[0], where=Filter(glob="*.tiff"), **choices)
        assert len(found) == 0
        assert [note.kind for note in found.notes] == ["nothing_passes"]
    with pytest.raises(UsageError, match="is not a source"):
        engine.search_many([files[0]], where=Filter(source="elsewhere"))  # before the first result is taken


@pytest.mark.usefixtures("tiny")
def test_a_lazy_index_computes_only_what_passes(tmp_path: Path) -> None:
    files = paint(tmp_path / "photos", range(12))
    index = tmp_path / "p.diffsim"
    build_index(tmp_path / "photos", index, run=replace(RUN, attention="lazy"))
    engine = Engine.open(index, EngineSettings(device="cpu"))
    allowed = [str(path) for path in files[4:9]]
    found = engine.search(files[0], k=9, where=Filter(glob=allowed))
    assert {result.path for result in found} == set(allowed)
    assert found.computed == 5
    os.remove(files[4])
    assert len(Engine.open(index, EngineSettings(device="cpu")).search(files[0], where=Filter(glob=allowed))) == 5


def test_the_options(index: Path, gallery: Path, tmp_path: Path) -> None:
    styles = sorted(path.name for path in gallery.iterdir())
    query = next((gallery / styles[0]).iterdir())
    asked = ("diffsim-search", "-i", index, query, "-k", "40")
    options = (
        "--under",
        gallery / styles[1],
        "--under",
        gallery / styles[2],
        "--glob",
        "c*.png",
        "--newer",
        "2000-01-01",
    )
    found = json.loads(run_here(*asked, *options, "--json", cwd=tmp_path).stdout)
    paths = [Path(result["path"]) for result in found["results"]]
    assert {path.parent.name for path in paths} == set(styles[1:3])
    assert all(path.name.startswith("c") for path in paths)
    assert found["filter"]["images"] == len(paths)
    nothing = run_here(*asked, "--older", "30y", cwd=tmp_path)
    assert nothing.returncode == 0
    assert "no image of the index passes the filter" in nothing.stderr.decode()
    assert "give both" in failed(run_here(*asked, "--where", "stars > 3", cwd=tmp_path), 2)
    assert "write it like" in failed(run_here(*asked, "--newer", "last week", cwd=tmp_path), 2)
    assert "it has: " in failed(run_here(*asked, "--source", "nowhere", cwd=tmp_path), 2)
