"""An index of every format version opens, answers, is verified and takes an update."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from index_store.commit import commit
from index_store.errors import IndexIncompatibleError
from index_store.generation import FORMAT_VERSION, read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval import BuildSettings, Engine, EngineSettings, build_index
from retrieval.images.decoding import DecodeRules
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.repairing import verify
from retrieval.models.registry import load_extractor
from retrieval.settings import ModelSettings
from tests.slices import loads_model_libraries
from tests.support.paths import DATA
from tests.support.ranking import assert_same_ranking

pytestmark = loads_model_libraries

INDEXES = DATA / "indexes"
TINY_SD15 = str(DATA / "tiny_sd15")
RUN = BuildSettings(device="cpu", workers=1)
ANSWERS = {  # another processor moves a score by up to 6e-5
    ("format1", "style"): [(0, 0.96947), (3, 0.88030), (1, 0.87744)],
    ("format2", "style"): [(0, 0.96947), (3, 0.88030), (1, 0.87744)],
    ("format3", "style"): [(0, 1.0), (2, 0.93494), (1, 0.91478)],
    ("format3", "instance"): [(0, 1.0), (2, 0.9164), (1, 0.86012)],
    ("format4", "style"): [(0, 1.0), (1, 0.73825), (2, 0.63129)],
    ("format4", "semantic"): [(0, 1.0), (1, 0.57803), (2, 0.53285)],
}
ANSWERING = {"format1": TINY_SD15, "format2": TINY_SD15, "format3": None, "format4": None}  # the weights of each
STORED_AS = {("format4", "semantic"): "semantic"}
VERSIONS = {"format1": 1, "format1_mini": 1, "format2": 2, "format3": 3, "format4": 4}
NAMES = {
    "format1_mini": ["boat.png"],
    "format3": ["boat.png", "kite.png", "tabby.png"],
    "format4": ["boat.png", "kite.png", "tabby.png"],
}


def opened(index: Path, name: str) -> Engine:
    return Engine.open(index, EngineSettings(device="cpu", weights=ANSWERING[name]))


def copy_of(name: str, folder: Path) -> Path:
    index = folder / f"{name}.diffsim"
    shutil.copytree(INDEXES / name, index)
    return index


def as_if_written_here(index: Path) -> Path:
    """Give ``index`` the digest of its weights by today's rule, and the probe of the Pillow that runs this test.

    When the older indexes were written, the digest covered whole files; now it covers the tensors that are loaded.
    """
    layout = Layout(index)
    generation = read_current(layout)
    changed = dict(generation.fingerprint)
    if changed["model"]["name"] == "sd15":
        settings = ModelSettings(model="sd15", weights=TINY_SD15, image_size=128)
        digest = load_extractor(settings, torch.device("cpu"), offline=True).fingerprint()["weights"]
        changed["model"] = {**changed["model"], "weights": digest}
    if "probe" in changed["pixels"]:
        changed["pixels"] = {**changed["pixels"], "probe": DecodeRules().fingerprint()["probe"]}
    commit(layout, replace(generation, fingerprint=changed), "test")
    return index


def test_every_format_version_has_an_index() -> None:
    assert {path.name for path in INDEXES.iterdir() if (path / "CURRENT").exists()} == set(VERSIONS)
    assert set(VERSIONS.values()) == set(range(1, FORMAT_VERSION + 1))


@pytest.mark.parametrize(("name", "version"), VERSIONS.items())
def test_it_is_read_and_verified(name: str, version: int, tmp_path: Path) -> None:
    index = copy_of(name, tmp_path)
    newest = max((index / "generations").iterdir())
    assert json.loads(newest.read_text())["generation"]["format_version"] == version
    reader = IndexReader(index)
    assert reader.generation.format_version == version
    names = NAMES.get(name, ["boat.png", "tabby.png", "kite.png"])
    assert [Path(item.uri).name for item in reader.items()] == names
    for mode in reader.generation.modes:
        for array in reader.attention(mode, range(len(reader))).values():
            assert np.isfinite(array).all()
    for encoder in reader.generation.encoders:
        lengths = np.linalg.norm(reader.vectors(encoder).astype(np.float32), axis=1)
        np.testing.assert_allclose(lengths, np.ones(len(names)), atol=1e-3)
    assert verify(index) == []


@pytest.mark.parametrize(("name", "mode"), ANSWERS)
def test_it_answers_as_it_did_when_it_was_written(name: str, mode: str, tmp_path: Path) -> None:
    engine = opened(as_if_written_here(copy_of(name, tmp_path)), name)
    assert engine.info()["modes"][mode]["stored_as"] == STORED_AS.get((name, mode), "style")
    found = engine.search(INDEXES / "pictures" / "boat.png", mode, exhaustive=True)
    assert_same_ranking(found.results, ANSWERS[name, mode], atol=1e-3, whole=True)


@pytest.mark.parametrize("name", [*(pytest.param(f"format{n}", marks=pytest.mark.thorough) for n in (1, 2)), "format3"])
def test_it_takes_new_images_and_becomes_one_of_today(name: str, tmp_path: Path) -> None:
    index, photos = as_if_written_here(copy_of(name, tmp_path)), tmp_path / "photos"
    photos.mkdir()
    shutil.copyfile(DATA / "golden_images" / "a0_disc.png", photos / "disc.png")
    report = build_index(photos, index, weights=ANSWERING[name], run=RUN)
    assert (report.added, report.items) == (1, 4)
    generation = IndexReader(index).generation
    assert generation.format_version == FORMAT_VERSION
    assert compact(index).segments < len(generation.segments)
    assert verify(index) == []
    old = [number for number, _ in ANSWERS[name, "style"]]
    new = opened(index, name).search(photos / "disc.png", "style", exhaustive=True).results[0].id
    assert new not in old
    found = opened(index, name).search(INDEXES / "pictures" / "boat.png", "style", exhaustive=True).results
    assert {result.id for result in found} == {*old, new}
    others = [result for result in found if result.id != new]
    assert_same_ranking(others, ANSWERS[name, "style"], atol=1e-3, whole=True)


@pytest.mark.parametrize("name", ["format1", "format2"])
def test_a_digest_of_other_weights_is_refused(name: str, tmp_path: Path) -> None:
    engine = opened(copy_of(name, tmp_path), name)
    with pytest.raises(IndexIncompatibleError, match=r"model\.weights: .* in the index"):
        engine.search(INDEXES / "pictures" / "boat.png", "style")


def test_an_index_of_a_model_that_has_changed_is_read_and_not_searched(tmp_path: Path) -> None:
    engine = Engine.open(copy_of("format1_mini", tmp_path), EngineSettings(device="cpu"))
    assert engine.info()["items"] == 1
    with pytest.raises(IndexIncompatibleError, match=r"model\.cells: 1 in the index, 2 asked for"):
        engine.search(INDEXES / "pictures" / "boat.png", "style")
