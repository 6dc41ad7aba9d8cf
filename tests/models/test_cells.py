"""The built-in model cells: its rules, fingerprint, scores and size."""

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.errors import UsageError
from retrieval.models.cells.pooled import Descriptor
from retrieval.models.modes import CELLS, CELLS_MODES, CellValues, Target
from retrieval.models.protocols import AttentionExtractor
from retrieval.models.registry import EXTRACTORS, load_extractor
from retrieval.scoring.aas import QKV, Comparison, aligned_attention_scores
from retrieval.settings import ModelSettings
from retrieval.types import Readout

CPU = torch.device("cpu")
MODES = sorted(CELLS_MODES)


def photo(seed: int, size: int = 160) -> np.ndarray:
    """A smooth random picture with an edge: something like an image."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    image = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC)).copy()
    image[size // 3 :, size // 2 :] //= 2
    return image


@pytest.fixture(scope="module")
def extractor() -> AttentionExtractor:
    return load_extractor(ModelSettings(model="cells"), CPU, offline=True)


def tensors(extractor: AttentionExtractor, images: list[np.ndarray], *targets: Target) -> list[QKV]:
    pixels = np.stack([extractor.prepare(Image.fromarray(image)) for image in images])
    found = extractor.extract(pixels, targets, "query")
    return [found[target] for target in targets]


@pytest.mark.parametrize("mode", MODES)
def test_an_image_scores_one_with_itself_and_less_with_another(extractor: AttentionExtractor, mode: str) -> None:
    target = CELLS_MODES[mode].target
    [both] = tensors(extractor, [photo(0), photo(1)], target)
    scores = aligned_attention_scores(both[:1], both, Comparison(readout=target.readout))
    assert scores[0].item() == pytest.approx(1.0, abs=1e-5)
    assert scores[1].item() < 0.99


@pytest.mark.parametrize("mode", MODES)
def test_tensors_depend_on_nothing_but_the_image(extractor: AttentionExtractor, mode: str) -> None:
    target, images = CELLS_MODES[mode].target, [photo(n) for n in range(5)]
    [together], [again], [alone] = (tensors(extractor, chosen, target) for chosen in (images, images, images[3:4]))
    for name in ("q", "k", "v"):
        assert torch.equal(getattr(together, name), getattr(again, name))
        torch.testing.assert_close(getattr(together, name)[3:4], getattr(alone, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_an_image_takes_at_most_100_kilobytes_a_mode(extractor: AttentionExtractor, mode: str) -> None:
    [one] = tensors(extractor, [photo(0)], CELLS_MODES[mode].target)
    assert 2 * sum(t.numel() for t in (one.q, one.k, one.v)) <= 100_000


def test_wrong_layers_sizes_and_weights_are_errors(extractor: AttentionExtractor) -> None:
    pixels = np.zeros((1, 144, 144, 3), np.uint8)
    with pytest.raises(UsageError, match="unknown layer 'M' of cells; known: cells"):
        extractor.extract(pixels, [Target("M", 50)], "query")
    with pytest.raises(UsageError, match="'cells' of cells is read by its modes only"):
        extractor.extract(pixels, [Target(CELLS, 50)], "query")
    with pytest.raises(UsageError, match="at least 48"):
        load_extractor(ModelSettings(model="cells", image_size=47), CPU, offline=True)
    with pytest.raises(UsageError, match="cells has no weights: leave out the folder elsewhere"):
        load_extractor(ModelSettings(model="cells", weights="elsewhere"), CPU, offline=True)


def test_the_fingerprint_is_that_of_indexes_built_before(extractor: AttentionExtractor) -> None:
    """Another key or value would make every existing index incompatible."""
    assert extractor.fingerprint() == {
        "name": "mini",
        "weights": None,
        "image_size": 144,
        "resize": "square-lanczos",
        "cells": 2,
        "branches": "cond",
        "noise": "shared",
        "seed": 2334,
        "dtype": "float32",
    }


def test_semantic_mode_warns_that_it_does_not_match_meaning() -> None:
    assert "not meaning" in EXTRACTORS["cells"].warnings["semantic"]


def test_a_targets_constants_are_part_of_the_fingerprint() -> None:
    plain = Target("U_0", 101)
    assert plain.to_json() == {"layer": "U_0", "timestep": 101}  # what every index of SD 1.5 says
    described = Target(CELLS, 0, CellValues(1.0, sharpness=2.0), Readout(root=True, floor=1e-5))
    for target in (plain, described):
        assert Target.from_json(target.to_json()) == target
    changed = Target(CELLS, 0, CellValues(1.0, sharpness=3.0), Readout(root=True, floor=1e-5))
    assert changed.to_json() != described.to_json()


def test_the_descriptor_sees_colour_and_texture() -> None:
    image = photo(1, 144)
    rng = np.random.default_rng(3)
    shuffled = rng.permutation(image.reshape(-1, 3)).reshape(image.shape)  # same colours, another texture
    recoloured = image[..., ::-1]  # same texture, other colours
    vectors = Descriptor(CPU, CellValues(1.0)).embed(np.stack([image, np.flip(image, axis=1), shuffled, recoloured]))
    assert vectors.shape == (4, 214)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-6)
    same, mixed, other = vectors[1:] @ vectors[0]
    assert same > mixed + 0.02
    assert same > other + 0.005
