"""What mini does for speed: fused convolutions, one image at a time, and few pixels to resize."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.images.preprocessing import resize_square
from retrieval.models.mini import network as networks
from retrieval.models.mini.attention import CELLS_SIDE, mini_on
from retrieval.models.mini.fused import fused
from retrieval.models.mini.network import Lite0, read_network
from retrieval.models.mini.weights import find_weights
from retrieval.models.modes import OBJECT, SURFACE, Target

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> Lite0:
    return read_network(find_weights(), CPU)


def images(side: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("side", [96, 224])
def test_fused_convolutions_give_the_maps_of_plain_ones(network: Lite0, side: int) -> None:
    found, plain = network.stages(images(side, 2)), network._maps(images(side, 2))
    assert network._may_fuse
    assert side in {key[0] for key in network._fused}
    for ours, expected in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


def test_maps_of_odd_sides_are_computed_plainly(network: Lite0) -> None:
    assert [maps.shape[-1] for maps in network.stages(images(100))] == [50, 25, 13, 7, 7, 4, 4]
    assert 100 not in {key[0] for key in network._fused}


def missing(*_: object) -> object:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_convolution_pointwise'")


def wrong(*geometry: object) -> object:
    right = fused(*geometry)  # type: ignore[arg-type]
    return lambda x: right(x) * 1.001


@pytest.mark.parametrize("other", [missing, wrong])
def test_without_right_fused_convolutions_the_plain_ones_stay(monkeypatch: pytest.MonkeyPatch, other: object) -> None:
    monkeypatch.setattr(networks, "fused", other)
    network = read_network(find_weights(), CPU)
    for ours, expected in zip(network.stages(images(96)), network._maps(images(96)), strict=True):
        assert torch.equal(ours, expected)
    assert not network._may_fuse


@pytest.mark.parametrize("side", [60, 150, 300, 1100])
def test_squares_are_close_to_those_of_a_full_resize(side: int, tmp_path: Path) -> None:
    """Whatever the size of the image; a smooth picture, because filters differ in sharp details."""
    x, y = np.meshgrid(np.linspace(0, 9, side), np.linspace(0, 7, side))
    waves = np.stack([np.sin(x + y), np.cos(2 * x), np.sin(y) * np.cos(x)], axis=-1)
    image = Image.fromarray((127 + 120 * waves).astype(np.uint8))
    extractor = mini_on(CPU, 224)
    for layer, size in ((OBJECT, 224), (SURFACE, CELLS_SIDE)):
        square = extractor.square(image, Target(layer, 0)).astype(int)
        assert np.abs(square - resize_square(image, size)).mean() < 1
