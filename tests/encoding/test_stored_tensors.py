"""The storage codecs: what a number may lose, and that every command works with every codec."""

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from cli.index_command import app as index_app
from cli.search_command import app as search_app
from index_store.codecs import CODECS, DEFAULT_CODEC, find_codec
from index_store.errors import DiffSimError, IndexCorruptError, IndexIncompatibleError, UsageError
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.tensors.projections import read_projection, write_projection
from retrieval import Engine, build_index
from retrieval.encoding.stored_tensors import load_projection
from retrieval.indexing.maintenance import compact, repair, verify
from retrieval.models.modes import MINI_MODES, at_step
from retrieval.models.protocols import HiddenExtractor
from retrieval.models.registry import load_extractor
from retrieval.settings import ModelSettings
from tests.models.test_sd15 import LAYERS, TINY, load
from tests.support import stub_models as tiny
from tests.support.faults import Operations, flip_bit
from tests.support.sample_index import RUN, Contents, paint
from tests.support.stub_models import tiny_model

HIDDEN = [name for name, codec in CODECS.items() if codec.hidden]
MODES = ["style", "instance"]


def widened(stored: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: array.astype(np.float32) for name, array in stored.items()}


def round_trip(codec: str, hidden: NDArray[Any]) -> NDArray[Any]:
    decoded: NDArray[Any] = CODECS[codec].decode(widened(CODECS[codec].encode({"h": hidden})))["h"]
    return decoded


# --- Numbers


def test_an_unknown_codec_is_told_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown codec 'zip'; known: qkv-float16, hidden-float16, hidden-int8"):
        find_codec("zip")
    paint(tmp_path / "photos", range(1))
    with pytest.raises(UsageError, match="unknown codec 'zip'"):
        build_index(tmp_path / "photos", tmp_path / "x.diffsim", model="mini", codec="zip")
    assert not (tmp_path / "x.diffsim").exists()
    assert ModelSettings().codec == DEFAULT_CODEC


CHANNEL = st.tuples(st.integers(-130, 18), st.integers(0, 2**32 - 1))  # size of a channel as a power of two, and a seed


@settings(max_examples=60, deadline=None)
@given(st.lists(CHANNEL, min_size=1, max_size=6), st.integers(1, 5))
def test_int8_is_off_by_half_a_step_of_its_own_channel_at_most(channels: list[tuple[int, int]], tokens: int) -> None:
    """However far apart channels lie: next to one of 10^6, one of 10^-3 keeps its 127 steps."""
    columns = [np.random.default_rng(seed).standard_normal(tokens) * 2.0**p for p, seed in channels]
    hidden = np.stack(columns, axis=-1).astype(np.float32)[None, None]
    stored = CODECS["hidden-int8"].encode({"h": hidden})
    largest = np.abs(hidden).max(axis=-2)
    step = largest / 127 * (1 + 2**-10) + 6e-8  # a scale is float16, rounded up
    error = np.abs(round_trip("hidden-int8", hidden) - hidden)
    assert (error <= step[..., None, :] / 2 * (1 + 1e-6)).all()
    assert np.abs(stored["h"].astype(int)).max() <= 127
    assert (stored["scale"] > 0).all()


@pytest.mark.parametrize("codec", HIDDEN)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_what_does_not_fit_is_an_error(codec: str, value: float) -> None:
    hidden = np.zeros((1, 1, 2, 3), np.float32)
    hidden[0, 0, 1, 2] = value
    with pytest.raises(DiffSimError, match="h tensors do not fit float16"):
        CODECS[codec].encode({"h": hidden})


def test_nothing_and_one_value_survive_int8() -> None:
    hidden = np.zeros((2, 1, 4, 3), np.float32)
    hidden[1, 0, 2, 1] = -0.75
    np.testing.assert_allclose(round_trip("hidden-int8", hidden), hidden, rtol=1e-3)


# --- Models: the layer's input, projected, is what extract gives


def test_mini_is_projected_from_the_roots_of_its_histograms() -> None:
    extractor = load_extractor(ModelSettings(model="mini"), torch.device("cpu"), offline=True)
    assert isinstance(extractor, HiddenExtractor)
    targets = [mode.target for mode in MINI_MODES.values()]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 144, 144, 3), np.uint8)
    direct, hidden = extractor.extract(pixels, targets, "gallery"), extractor.hidden(pixels, targets, "gallery")
    for target in targets:
        assert hidden[target].shape[1:] == extractor.hidden_shape(target)
        projected = load_projection(extractor.projection(target).arrays())(hidden[target])
        for name in "qkv":
            torch.testing.assert_close(getattr(projected, name), getattr(direct[target], name), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="unknown layer 'M' of mini"):
        extractor.projection(replace(targets[0], layer="M"))


@pytest.mark.parametrize("branches", ["both", "cond"])
def test_sd15_is_projected_as_its_layers_do(branches: str) -> None:
    extractor = load(branches=branches)
    targets = [at_step(layer, 600) for layer in LAYERS]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    hidden = extractor.hidden(pixels, targets, "gallery")
    for target in targets:
        assert hidden[target].shape[1:] == extractor.hidden_shape(target)
        layer = extractor.attention(target.layer)
        projected = load_projection(extractor.projection(target).arrays()).to("cpu")(hidden[target])
        for to, found in ((layer.to_q, projected.q), (layer.to_k, projected.k), (layer.to_v, projected.v)):
            own = to(hidden[target]).unflatten(-1, (layer.heads, -1)).transpose(-3, -2)
            torch.testing.assert_close(found, own, rtol=0, atol=1e-6)


# --- Indexes


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory, gallery: Path) -> dict[str, Path]:
    """The drawn gallery, with mini, by codec."""
    folder = tmp_path_factory.mktemp("codecs")
    found = {}
    for codec in CODECS:
        found[codec] = folder / f"{codec}.diffsim"
        run = replace(RUN, batch_size=16, segment_rows=16)
        build_index(gallery, found[codec], model="mini", modes=MODES, codec=codec, run=run)
    return found


def scores(index: Path, query: Path, mode: str) -> dict[int, float]:
    results = Engine.open(index).search(query, mode, k=1000, exhaustive=True)
    return {result.id: result.score for result in results if result.score is not None}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("codec", "tolerance"), [("hidden-float16", 2e-4), ("hidden-int8", 2e-3)])
def test_scores_are_those_of_qkv(
    indexes: dict[str, Path], gallery: Path, mode: str, codec: str, tolerance: float
) -> None:
    query = sorted(gallery.rglob("*.png"))[3]
    expected, found = scores(indexes["qkv-float16"], query, mode), scores(indexes[codec], query, mode)
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


@pytest.mark.parametrize("codec", HIDDEN)
def test_tiny_sd15_scores_and_orders_as_qkv_does(tmp_path: Path, codec: str) -> None:
    images = TINY.parent / "golden_images"
    found = {}
    for name in ("qkv-float16", codec):
        index = tmp_path / f"{name}.diffsim"
        choices: dict[str, Any] = {"model": "sd15", "weights": str(TINY), "image_size": 128, "encoders": {}}
        build_index(images, index, modes=["style"], codec=name, run=RUN, **choices)
        engine = Engine.open(index)
        found[name] = [engine.search(query, exhaustive=True) for query in sorted(images.iterdir())]
    for expected, results in zip(found["qkv-float16"], found[codec], strict=True):
        assert [r.id for r in results[:4]] == [r.id for r in expected[:4]]
        by_id = {r.id: r.score for r in expected}
        assert max(abs((r.score or 0) - (by_id[r.id] or 0)) for r in results) < 2e-3
    assert len(list((tmp_path / f"{codec}.diffsim" / "projections").iterdir())) == 1


@pytest.mark.parametrize("codec", HIDDEN)
def test_compaction_keeps_every_stored_byte(tmp_path: Path, codec: str) -> None:
    paint(tmp_path / "photos", range(7))
    index = tmp_path / "x.diffsim"
    with tiny_model():
        build_index(tmp_path / "photos", index, model="mini", codec=codec, run=RUN)
        before = Contents.of(index)
        found = scores(index, tmp_path / "photos" / "003.png", "style")
        compact(index, now=True)
        assert Contents.of(index) == before
        assert scores(index, tmp_path / "photos" / "003.png", "style") == found
        assert verify(index) == []


def test_an_index_keeps_its_codec(indexes: dict[str, Path], gallery: Path) -> None:
    index = indexes["hidden-int8"]
    assert build_index(gallery, index).added == 0
    with pytest.raises(IndexIncompatibleError, match=r"codec: hidden-int8 in the index, qkv-float16 asked for"):
        build_index(gallery, index, codec="qkv-float16")
    with pytest.raises(UsageError, match="unknown codec 'zip'"):
        build_index(gallery, index, codec="zip")
    assert read_current(Layout(index)).fingerprint["codec"] == "hidden-int8"


def test_a_model_without_layer_inputs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        prepare, extract = tiny.TinyExtractor.prepare, tiny.TinyExtractor.extract
        fingerprint = tiny.TinyExtractor.fingerprint

    monkeypatch.setattr(tiny, "TinyExtractor", Plain)
    paint(tmp_path / "photos", range(1))
    with tiny_model(), pytest.raises(UsageError, match=r"codec hidden-int8 keeps; choose qkv-float16"):
        build_index(tmp_path / "photos", tmp_path / "x.diffsim", model="mini", codec="hidden-int8", run=RUN)
    assert not (tmp_path / "x.diffsim").exists()


# --- Projections


def test_modes_of_one_projection_share_a_file_and_any_damage_is_found(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    arrays = {"q": np.arange(12, dtype=np.float32).reshape(2, 2, 3), "heads": np.array(2)}
    digest = write_projection(layout, arrays)
    assert write_projection(layout, arrays) == digest
    assert write_projection(layout, {"q": arrays["q"]}) != digest
    found = read_projection(layout, digest)
    assert found.keys() == arrays.keys()
    np.testing.assert_array_equal(found["q"], arrays["q"])
    victim = layout.projection(digest)
    whole = victim.read_bytes()
    for length in range(0, len(whole), 7):
        victim.write_bytes(whole[:length])
        with pytest.raises(IndexCorruptError, match="projections"):
            read_projection(layout, digest)
    victim.write_bytes(whole)
    for bit in range(0, 8 * len(whole), 11):
        flip_bit(victim, bit)
        with pytest.raises(IndexCorruptError, match="digest does not match"):
            read_projection(layout, digest)
        flip_bit(victim, bit)
    victim.unlink()
    with pytest.raises(IndexCorruptError, match="is missing"):
        read_projection(layout, digest)


def test_a_damaged_projection_is_an_error_and_a_build_brings_it_back(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "x.diffsim"
    query = paint(photos, range(3))[0]
    with tiny_model():
        build_index(photos, index, model="mini", codec="hidden-float16", run=RUN)
        expected = scores(index, query, "style")
        victim = next((index / "projections").iterdir())
        flip_bit(victim, 1000)
        with pytest.raises(IndexCorruptError, match="projections"):
            scores(index, query, "style")
        assert [damage.projection for damage in verify(index)] == ["style", "instance", "semantic"]
        repair(index)
        with pytest.raises(IndexCorruptError, match=r"lacks the projection of mode style.*diffsim-index build"):
            scores(index, query, "style")
        build_index(photos, index, run=RUN)
        assert scores(index, query, "style") == expected
        assert verify(index) == []


def test_a_first_build_stopped_anywhere_leaves_an_index_with_its_projections(tmp_path: Path) -> None:
    """Or none at all; the same command goes on, and everything is as if it had never been stopped."""
    photos = tmp_path / "photos"
    paint(photos, range(3))

    def build(index: Path) -> None:
        with tiny_model():
            build_index(photos, index, model="mini", modes=["style"], codec="hidden-int8", run=RUN)

    def stop() -> None:
        raise KeyboardInterrupt

    with Operations(tmp_path, 0, stop, only_main=True, only_durable=True).watched() as undisturbed:
        build(tmp_path / "whole")
    whole = Contents.of(tmp_path / "whole")
    assert undisturbed.count > 10
    for number in range(1, undisturbed.count + 1):
        index = tmp_path / f"{number}.diffsim"
        with (
            suppress(KeyboardInterrupt),
            Operations(tmp_path, number, stop, only_main=True, only_durable=True).watched(),
        ):
            build(index)
        if Layout(index).current.exists():
            assert verify(index) == [], f"stopped at operation {number}"
            assert IndexReader(index).projection("style").keys() == {"q", "k", "v"}
        build(index)
        assert Contents.of(index).differences(whole) == [], f"stopped at operation {number}"
        assert len(list((index / "projections").iterdir())) == 1


def test_projections_that_nothing_names_are_cleared(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "x.diffsim"
    paint(photos, range(2))
    with tiny_model():
        build_index(photos, index, model="mini", codec="hidden-float16", run=RUN)
        kept = sorted((index / "projections").iterdir())
        shutil.copy(kept[0], index / "projections" / "0123456789abcdef.npz")
        build_index(photos, index, run=RUN)
        assert sorted((index / "projections").iterdir()) == kept


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
    chosen = ("--model", "mini", "--modes", "style", "--codec", codec, "-q")
    command(index_app, "build", tmp_path / "photos", *where, *chosen)
    assert f"codec {codec}" in command(index_app, "info", *where)
    about = json.loads(command(index_app, "info", *where, "--json"))
    assert about["codec"] == about["fingerprint"]["codec"] == codec
    assert (about["bytes"]["projections"] > 0) == CODECS[codec].hidden
    found = command(search_app, query, *where, "--jsonl", "-k", "1")
    assert json.loads(found)["path"] == str(query)
    assert "whole" in command(index_app, "verify", *where)
    command(index_app, "compact", *where, "--now", "-q")
    command(index_app, "export", tmp_path / "out", *where)
    assert command(search_app, query, *where, "--jsonl", "-k", "1") == found
