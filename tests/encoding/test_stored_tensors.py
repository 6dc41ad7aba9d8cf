"""The storage codecs and projections: what a number may lose, and how layer inputs become Q/K/V."""

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index_store.codecs import CODECS, DEFAULT_CODEC, find_codec
from index_store.errors import DiffSimError, IndexCorruptError, UsageError
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.tensors.projections import read_projection, write_projection
from retrieval import build_index
from retrieval.encoding.stored_tensors import load_projection
from retrieval.indexing.upkeep.repairing import repair, verify
from retrieval.models.defaults import resolve
from retrieval.models.modes import CELLS_MODES, at_step
from retrieval.models.protocols import HiddenExtractor
from retrieval.models.registry import load_extractor
from retrieval.settings import ModelSettings
from tests.indexing.builds import exact_scores
from tests.models.test_sd15 import LAYERS, load
from tests.slices import examples, loads_model_libraries
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
        build_index(tmp_path / "photos", tmp_path / "x.diffsim", model="cells", codec="zip")
    assert not (tmp_path / "x.diffsim").exists()


@pytest.mark.parametrize(
    ("model", "codec"), [("sd15", DEFAULT_CODEC), ("cells", "hidden-float16"), ("mini", "hidden-float16")]
)
def test_the_codec_is_the_models_own_unless_one_is_named(model: str, codec: str) -> None:
    for asked, expected in ((None, codec), *((name, name) for name in CODECS)):
        assert resolve(ModelSettings(model=model, codec=asked), [], "cpu").codec == expected


CHANNEL = st.tuples(st.integers(-130, 18), st.integers(0, 2**32 - 1))  # size of a channel as a power of two, and a seed


@settings(max_examples=examples(60), deadline=None)
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
    extractor = load_extractor(ModelSettings(model="cells"), torch.device("cpu"), offline=True)
    assert isinstance(extractor, HiddenExtractor)
    targets = [mode.target for mode in CELLS_MODES.values()]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 144, 144, 3), np.uint8)
    direct, hidden = extractor.extract(pixels, targets, "gallery"), extractor.hidden(pixels, targets, "gallery")
    for target in targets:
        assert hidden[target].shape[1:] == extractor.hidden_shape(target)
        projected = load_projection(extractor.projection(target).arrays())(hidden[target])
        for name in "qkv":
            torch.testing.assert_close(getattr(projected, name), getattr(direct[target], name), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="unknown layer 'M' of cells"):
        extractor.projection(replace(targets[0], layer="M"))


@loads_model_libraries
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
        build_index(photos, index, model="cells", codec="hidden-float16", run=RUN)
        expected = exact_scores(index, query, "style")
        victim = next((index / "projections").iterdir())
        flip_bit(victim, 1000)
        with pytest.raises(IndexCorruptError, match="projections"):
            exact_scores(index, query, "style")
        assert [damage.projection for damage in verify(index)] == ["style", "instance", "semantic"]
        repair(index)
        with pytest.raises(IndexCorruptError, match="the projection of mode style"):
            exact_scores(index, query, "style")
        build_index(photos, index, run=RUN)
        assert exact_scores(index, query, "style") == pytest.approx(expected, abs=1e-6)
        assert verify(index) == []


@pytest.mark.thorough
def test_a_first_build_stopped_anywhere_leaves_an_index_with_its_projections(tmp_path: Path) -> None:
    """Or none at all; the same command goes on, and everything is as if it had never been stopped."""
    photos = tmp_path / "photos"
    paint(photos, range(3))

    def build(index: Path) -> None:
        with tiny_model():
            build_index(photos, index, model="cells", modes=["style"], codec="hidden-int8", run=RUN)

    def stop() -> None:
        raise KeyboardInterrupt

    with Operations(tmp_path, 0, stop, only_main=True, only_durable=True).watched() as undisturbed:
        build(tmp_path / "whole")
    whole = Contents.of(tmp_path / "whole")
    assert undisturbed.count > 8
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
        build_index(photos, index, model="cells", codec="hidden-float16", run=RUN)
        kept = sorted((index / "projections").iterdir())
        shutil.copy(kept[0], index / "projections" / "0123456789abcdef.npz")
        build_index(photos, index, run=RUN)
        assert sorted((index / "projections").iterdir()) == kept
