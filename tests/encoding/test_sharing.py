"""Modes that read one layer at one timestep share their stored tensors."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index_store.codecs import CODECS
from index_store.commit import commit
from index_store.disk_usage import bytes_on_disk
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.encoding.sharing import stored_names
from retrieval.indexing.build import build_index
from retrieval.indexing.fill import fill_index
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.repairing import verify
from retrieval.models.modes import CELLS_MODES, SD15_MODES
from retrieval.search.engine import Engine
from tests.indexing.builds import computed
from tests.models.test_sd15 import TINY
from tests.slices import loads_model_libraries, slice_of
from tests.support.sample_index import RUN, paint

pytestmark = loads_model_libraries

IMAGES = 3
CELLS = {"model": "cells", "encoders": {}}
SD15 = {"model": "sd15", "weights": str(TINY), "image_size": 64, "encoders": {}}
SHARING: list[tuple[dict[str, Any], str, list[str]]] = [
    *((CELLS, codec, ["style", "instance", "semantic"]) for codec in ("hidden-float16", "hidden-int8")),
    *((SD15, codec, ["style", "lowlevel"]) for codec in ("qkv-float16", "hidden-int8")),
]
every_case = pytest.mark.parametrize(
    ("choices", "codec", "modes"),
    slice_of(SHARING, lambda choices, codec, modes: choices is CELLS or codec == "qkv-float16"),  # int8 with cells
    ids=[f"{choices['model']}-{codec}" for choices, codec, _ in SHARING],
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    paint(tmp_path / "photos", range(IMAGES))
    return tmp_path / "photos"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "photos.diffsim"


@pytest.fixture
def apart(photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Build an index whose modes share nothing, as all did before format 3."""

    def build(**choices: Any) -> Path:
        place = index.with_name("apart.diffsim")
        with monkeypatch.context() as patch:
            patch.setattr("retrieval.encoding.recipe.stored_names", lambda targets, *_: {m: m for m in targets})
            build_index(photos, place, run=RUN, **choices)
        stored = read_current(Layout(place))
        commit(Layout(place), replace(stored, tensors={}), "an older version")
        return place

    return build


def scores(index: Path, query: Path, mode: str) -> list[tuple[int, float | None]]:
    found = Engine.open(index).search(query, mode, k=100, exhaustive=True)
    return [(result.id, result.score) for result in found]


def shards(index: Path) -> int:
    return sum(path.stat().st_size for path in (index / "attention").rglob("*") if "c" in path.parts and path.is_file())


@every_case
@pytest.mark.thorough
def test_scores_are_the_bits_of_separate_tensors_at_a_part_of_the_bytes(
    photos: Path, index: Path, apart: Any, choices: dict[str, Any], codec: str, modes: list[str]
) -> None:
    build_index(photos, index, modes=modes, codec=codec, run=RUN, **choices)
    separate = apart(modes=modes, codec=codec, **choices)
    assert shards(index) * len(modes) == shards(separate)
    for mode in modes:
        assert scores(index, photos / "002.png", mode) == scores(separate, photos / "002.png", mode)
    about = Engine.open(index).info()
    assert {mode: about["modes"][mode]["stored_as"] for mode in modes} == dict.fromkeys(modes, "style")
    assert about["coverage"] == dict.fromkeys(modes, IMAGES)
    on_disk = bytes_on_disk(Layout(index), ["style"])
    assert about["bytes"] == {**on_disk, "total": sum(on_disk.values())}
    before = [scores(index, photos / "001.png", mode) for mode in modes]
    compact(index, now=True)
    assert verify(index) == []
    assert [scores(index, photos / "001.png", mode) for mode in modes] == before
    assert len(list((index / "attention").iterdir())) == 1


@every_case
@pytest.mark.thorough
def test_a_mode_added_later_computes_nothing(
    photos: Path,
    index: Path,
    monkeypatch: pytest.MonkeyPatch,
    choices: dict[str, Any],
    codec: str,
    modes: list[str],
) -> None:
    """Neither does it write tensors, not even of an image whose file is gone."""
    build_index(photos, index, modes=modes[:1], codec=codec, run=RUN, **choices)
    stored = {path: path.stat().st_mtime_ns for path in (index / "attention").rglob("*") if path.is_file()}
    batches = computed(monkeypatch)
    (photos / "000.png").rename(index.with_name("away.png"))
    paint(photos.parent / "other", [7])
    build_index(photos.parent / "other", index, run=RUN)
    batches.clear()
    report = build_index(photos.parent / "other", index, modes=modes, run=RUN)
    assert (batches, report.completed, report.incomplete) == ([], 0, 0)
    assert report.coverage == dict.fromkeys(modes, IMAGES + 1)
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    for mode in modes:
        assert len(scores(index, photos / "001.png", mode)) == IMAGES + 1
    assert (len(list((index / "projections").glob("*"))) > 0) == CODECS[codec].hidden


@every_case
@pytest.mark.thorough
def test_searches_and_fills_of_one_mode_serve_the_others(
    photos: Path, index: Path, choices: dict[str, Any], codec: str, modes: list[str]
) -> None:
    run = replace(RUN, attention="lazy")
    build_index(photos, index, modes=modes, codec=codec, run=run, **choices)
    engine = Engine.open(index)
    first = engine.search(photos / "002.png", modes[0], exhaustive=True)
    others = [engine.search(photos / "002.png", mode, exhaustive=True) for mode in modes[1:]]
    assert (first.computed, first.cached) == (IMAGES, 0)
    assert [(found.computed, found.cached) for found in others] == [(0, IMAGES)] * len(others)
    report = fill_index(index, modes=modes[-1:], run=RUN)
    assert (report.adopted, report.completed) == (IMAGES, 0)
    assert report.modes == tuple(modes)
    assert report.coverage == dict.fromkeys(modes, IMAGES)
    again = Engine.open(index).search(photos / "002.png", modes[-1], exhaustive=True)
    assert (again.computed, again.cached) == (0, 0)
    assert [(r.id, r.score) for r in again] == [(r.id, r.score) for r in others[-1]]


def test_an_index_of_separate_tensors_stays_so_and_shares_what_is_added(photos: Path, index: Path, apart: Any) -> None:
    old = apart(modes=["instance", "style"], codec="hidden-float16", **CELLS)
    expected = {mode: scores(old, photos / "002.png", mode) for mode in ("instance", "style")}
    report = build_index(photos, old, modes=["semantic"], run=RUN)
    assert (report.completed, report.modes) == (0, ("instance", "style", "semantic"))
    assert read_current(Layout(old)).stored_names == ("instance", "style")
    assert {mode: scores(old, photos / "002.png", mode) for mode in expected} == expected
    paint(photos, [8])
    assert build_index(photos, old, run=RUN).added == 1
    reader = IndexReader(old)
    assert all(reader.has_tensors(mode).all() for mode in reader.generation.modes)
    np.testing.assert_array_equal(reader.attention("style", [IMAGES])["h"], reader.attention("semantic", [IMAGES])["h"])


@pytest.mark.parametrize(
    ("modes", "codec", "expected"),
    [
        (SD15_MODES, "qkv-float16", {"lowlevel": "style"}),
        (SD15_MODES, "hidden-int8", {"lowlevel": "style"}),
        (CELLS_MODES, "qkv-float16", {}),
        (CELLS_MODES, "hidden-float16", {"instance": "style", "semantic": "style"}),
    ],
)
def test_what_is_shared(modes: Mapping[str, Any], codec: str, expected: dict[str, str]) -> None:
    """Q, K and V need the same values, layer inputs only the same layer and timestep."""
    targets = {name: mode.target for name, mode in modes.items()}
    assert stored_names(targets, CODECS[codec]) == {**{name: name for name in modes}, **expected}
    kept = dict.fromkeys(modes, "elsewhere")
    assert stored_names(targets, CODECS[codec], kept) == kept
