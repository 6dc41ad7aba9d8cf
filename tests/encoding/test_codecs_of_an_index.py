"""Indexes of every codec: scores, sizes, compaction, and the commands."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.index_command import app as index_app
from cli.search_command import app as search_app
from index_store.codecs import CODECS
from index_store.errors import IndexIncompatibleError, UsageError
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval import Engine, build_index
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.repairing import verify
from retrieval.search.results import Results
from tests.indexing.builds import exact_scores
from tests.models.test_sd15 import TINY
from tests.slices import loads_model_libraries
from tests.support import stub_models as tiny
from tests.support.ranking import assert_same_ranking
from tests.support.sample_index import RUN, Contents, paint
from tests.support.stub_models import load_tiny, tiny_model

pytestmark = loads_model_libraries

HIDDEN = [name for name, codec in CODECS.items() if codec.hidden]
MODES = ["style", "instance"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, gallery: Path) -> Path:
    """Two styles of the drawn gallery."""
    folder = tmp_path_factory.mktemp("pictures")
    for style in sorted(gallery.iterdir())[:2]:
        shutil.copytree(style, folder / style.name)
    return folder


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> dict[str, Path]:
    """The pictures, with cells, by codec."""
    folder = tmp_path_factory.mktemp("codecs")
    found = {}
    for codec in CODECS:
        found[codec] = folder / f"{codec}.diffsim"
        run = replace(RUN, batch_size=8, segment_rows=8)
        build_index(pictures, found[codec], model="cells", modes=MODES, codec=codec, run=run)
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("codec", "tolerance"), [("hidden-float16", 2e-4), ("hidden-int8", 2e-3)])
def test_scores_are_those_of_qkv(
    indexes: dict[str, Path], pictures: Path, mode: str, codec: str, tolerance: float
) -> None:
    query = sorted(pictures.rglob("*.png"))[3]
    expected, found = exact_scores(indexes["qkv-float16"], query, mode), exact_scores(indexes[codec], query, mode)
    assert found.keys() == expected.keys()
    error = max(abs(found[number] - expected[number]) for number in expected)
    assert 0 < error < tolerance


def test_an_index_is_a_third_and_a_sixth(indexes: dict[str, Path]) -> None:
    def payload(index: Path) -> int:
        rows = IndexReader(index).attention("style", [0])
        return sum(array.nbytes for array in rows.values())

    sizes = {codec: payload(index) for codec, index in indexes.items()}
    assert sizes["hidden-float16"] * 3 == sizes["qkv-float16"]
    assert sizes["hidden-int8"] * 5.6 < sizes["qkv-float16"]


@pytest.fixture(scope="module")
def sd15_results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Results]]]:
    """The folder of an index of the golden images a codec, with the tiny SD 1.5; and all their rankings."""
    folder, images, found = tmp_path_factory.mktemp("sd15"), TINY.parent / "golden_images", {}
    for name in CODECS:
        choices: dict[str, Any] = {"model": "sd15", "weights": str(TINY), "image_size": 128, "encoders": {}}
        build_index(images, folder / f"{name}.diffsim", modes=["style"], codec=name, run=RUN, **choices)
        engine = Engine.open(folder / f"{name}.diffsim")
        found[name] = [engine.search(query, exhaustive=True) for query in sorted(images.iterdir())]
    return folder, found


@pytest.mark.parametrize("codec", HIDDEN)
@pytest.mark.thorough
def test_tiny_sd15_scores_and_orders_as_qkv_does(
    sd15_results: tuple[Path, dict[str, list[Results]]], codec: str
) -> None:
    folder, found = sd15_results
    for expected, results in zip(found["qkv-float16"], found[codec], strict=True):
        assert_same_ranking(results, expected, atol=2e-3, whole=True)
    assert len(list((folder / f"{codec}.diffsim" / "projections").iterdir())) == 1


@pytest.mark.parametrize("codec", HIDDEN)
def test_compaction_keeps_every_stored_byte(tmp_path: Path, codec: str) -> None:
    paint(tmp_path / "photos", range(7))
    index = tmp_path / "x.diffsim"
    with tiny_model():
        build_index(tmp_path / "photos", index, model="cells", codec=codec, run=RUN)
        before = Contents.of(index)
        found = exact_scores(index, tmp_path / "photos" / "003.png", "style")
        compact(index, now=True)
        assert Contents.of(index) == before
        assert exact_scores(index, tmp_path / "photos" / "003.png", "style") == pytest.approx(found, abs=1e-6)
        assert verify(index) == []


def test_an_index_keeps_its_codec(indexes: dict[str, Path], pictures: Path) -> None:
    index = indexes["hidden-int8"]
    assert build_index(pictures, index).added == 0
    with pytest.raises(IndexIncompatibleError, match=r"codec: hidden-int8 in the index, qkv-float16 asked for"):
        build_index(pictures, index, codec="qkv-float16")
    with pytest.raises(UsageError, match="unknown codec 'zip'"):
        build_index(pictures, index, codec="zip")
    assert read_current(Layout(index)).fingerprint["codec"] == "hidden-int8"


def test_a_model_without_layer_inputs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        prepare, extract = tiny.TinyExtractor.prepare, tiny.TinyExtractor.extract
        fingerprint = tiny.TinyExtractor.fingerprint

    monkeypatch.setattr(tiny, "TinyExtractor", Plain)
    paint(tmp_path / "photos", range(1))
    index, codec = tmp_path / "x.diffsim", "hidden-int8"
    with pytest.raises(UsageError, match=r"codec hidden-int8 stores layer inputs .*; choose qkv-float16"):
        build_index(tmp_path / "photos", index, model="cells", codec=codec, run=RUN, load=load_tiny)
    assert not (tmp_path / "x.diffsim").exists()


# --- Commands


def command(app: typer.Typer, *words: str | Path) -> str:
    """Run a command in this process, and return what it printed."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("codec", CODECS)
def test_the_commands_work_with_every_codec(tmp_path: Path, codec: str) -> None:
    index, query = tmp_path / "x.diffsim", paint(tmp_path / "photos", range(4))[2]
    where = ("--index", index)
    chosen = ("--model", "cells", "--modes", "style", "--codec", codec, "-q")
    command(index_app, "build", tmp_path / "photos", *where, *chosen)
    assert f"codec {codec}" in command(index_app, "info", *where)
    about = json.loads(command(index_app, "info", *where, "--json"))
    assert about["codec"] == about["fingerprint"]["codec"] == codec
    assert (about["bytes"]["projections"] > 0) == CODECS[codec].hidden
    found = command(search_app, query, *where, "--jsonl", "-k", "1")
    assert json.loads(found)["path"] == str(query)
    assert "no damage" in command(index_app, "verify", *where)
    command(index_app, "compact", *where, "--now", "-q")
    command(index_app, "export", tmp_path / "out", *where)
    assert command(search_app, query, *where, "--jsonl", "-k", "1") == found
