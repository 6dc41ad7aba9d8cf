"""The embedded model as an extractor: its network against diffusers', its rules, its values, what it costs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.aas import QKV, aligned_attention_scores
from retrieval.backbones import EXTRACTORS, AttentionExtractor, load_extractor
from retrieval.backbones.descriptor import Descriptor
from retrieval.backbones.mini import load_network
from retrieval.errors import ModelError, UsageError
from retrieval.mini.unet import MiniUNet, UNetShape, fold
from retrieval.modes import CELLS, MINI_MODES, CellValues, Target
from retrieval.noise import add_noise, alpha_bars
from retrieval.settings import ModelSettings
from retrieval.vocabulary import Readout

CPU = torch.device("cpu")
WEIGHTS = Path(__file__).parent / "data" / "mini_unet"
MODES = sorted(MINI_MODES)


def photo(seed: int, size: int = 160) -> np.ndarray:
    """A smooth random picture with an edge: something like an image."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    image = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC)).copy()
    image[size // 3 :, size // 2 :] //= 2
    return image


@pytest.fixture(scope="module")
def extractor() -> AttentionExtractor:
    return load_extractor(ModelSettings(model="mini"), CPU, offline=True)


@pytest.fixture(scope="module")
def with_network() -> AttentionExtractor:
    return load_extractor(ModelSettings(model="mini", weights=str(WEIGHTS), dtype="float32"), CPU, offline=True)


def tensors(extractor: AttentionExtractor, images: list[np.ndarray], *targets: Target) -> list[QKV]:
    pixels = np.stack([extractor.prepare(Image.fromarray(image)) for image in images])
    found = extractor.extract(pixels, targets, "query")
    return [found[target] for target in targets]


def test_the_network_is_diffusers_unet() -> None:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    mine = MiniUNet(UNetShape()).eval()
    theirs = UNet2DModel(
        in_channels=48,
        out_channels=48,
        block_out_channels=(64, 96, 160),
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=32,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    ).eval()
    theirs.load_state_dict(mine.state_dict())
    sample, timestep = torch.randn(2, 48, 16, 16), torch.tensor([7, 600])
    with torch.inference_mode():
        torch.testing.assert_close(mine(sample, timestep), theirs(sample, timestep).sample, rtol=1e-4, atol=1e-5)


def test_folding_keeps_every_pixel() -> None:
    pixels = torch.arange(3 * 8 * 8.0).reshape(1, 3, 8, 8)
    assert torch.equal(torch.nn.functional.pixel_shuffle(fold(pixels, 4), 4), pixels)


def test_trained_weights_denoise() -> None:
    """Guards the weights file, the noise schedule and the pixel range: a wrong one of them predicts no noise."""
    images = torch.from_numpy(np.stack([photo(seed, 96) for seed in range(8)]).transpose(0, 3, 1, 2)) / 127.5 - 1
    noise = torch.randn((8, 48, 24, 24), generator=torch.Generator().manual_seed(1))
    noisy = add_noise(fold(images, 4), noise, float(alpha_bars()[300]))
    with torch.inference_mode():
        predicted = load_network(WEIGHTS)(noisy, torch.full((8,), 300))
    assert torch.nn.functional.mse_loss(predicted, noise).item() < 0.3  # predicting nothing scores 1.0
    assert (WEIGHTS / "unet.safetensors").stat().st_size < 15e6


def test_trained_attention_does_not_collapse_onto_borders(with_network: AttentionExtractor) -> None:
    """What each token of the middle layer receives, 1 on average: training on noise alone left the centre 0.1."""
    [found] = tensors(with_network, [photo(n) for n in range(6)], Target("M", 50))
    received = torch.softmax(found.q @ found.k.transpose(-1, -2) / found.q.shape[-1] ** 0.5, dim=-1).mean(
        dim=(0, 1, 2, 3)
    )
    received = 36 * received.view(6, 6)
    assert received.mean() == pytest.approx(1.0, abs=1e-4)
    assert received[2:4, 2:4].mean() > 0.5
    assert received[[0, 0, 5, 5], [0, 5, 0, 5]].mean() < 2.0


def test_tensors_have_one_branch_and_the_layers_shape(with_network: AttentionExtractor) -> None:
    targets = [Target("U_1", 50), Target("M", 50), Target("U_1", 300), Target("M", 50, CellValues(1.0))]
    shallow, middle, noisier, described = tensors(with_network, [photo(0), photo(1)], *targets)
    assert shallow.q.shape == (2, 1, 3, 144, 32)
    assert middle.q.shape == (2, 1, 5, 36, 32)
    assert not torch.equal(shallow.q, noisier.q)
    assert torch.equal(described.q, middle.q)
    assert described.v.shape == (2, 1, 1, 36, 214)


@pytest.mark.parametrize("mode", MODES)
def test_an_image_scores_one_with_itself_and_less_with_another(extractor: AttentionExtractor, mode: str) -> None:
    target = MINI_MODES[mode].target
    [both] = tensors(extractor, [photo(0), photo(1)], target)
    scores = aligned_attention_scores(both[:1], both, readout=target.readout)
    assert scores[0].item() == pytest.approx(1.0, abs=1e-5)
    assert scores[1].item() < 0.99


@pytest.mark.parametrize("mode", MODES)
def test_tensors_depend_on_nothing_but_the_image(extractor: AttentionExtractor, mode: str) -> None:
    target, images = MINI_MODES[mode].target, [photo(n) for n in range(5)]
    [together], [again], [alone] = (tensors(extractor, chosen, target) for chosen in (images, images, images[3:4]))
    for name in ("q", "k", "v"):
        assert torch.equal(getattr(together, name), getattr(again, name))
        torch.testing.assert_close(getattr(together, name)[3:4], getattr(alone, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_an_image_takes_at_most_100_kilobytes_a_mode(extractor: AttentionExtractor, mode: str) -> None:
    [one] = tensors(extractor, [photo(0)], MINI_MODES[mode].target)
    assert 2 * sum(t.numel() for t in (one.q, one.k, one.v)) <= 100_000


def test_wrong_layers_and_sizes_are_told(extractor: AttentionExtractor, with_network: AttentionExtractor) -> None:
    pixels = np.zeros((1, 144, 144, 3), np.uint8)
    with pytest.raises(UsageError, match="cells, D_1, D_2, M, U_0, U_1"):
        with_network.extract(pixels, [Target("D_0", 50)], "query")
    with pytest.raises(UsageError, match="need its weights"):
        extractor.extract(pixels, [Target("M", 50)], "query")
    with pytest.raises(UsageError, match="at least 48"):
        load_extractor(ModelSettings(model="mini", image_size=47), CPU, offline=True)
    with pytest.raises(ModelError, match=r"unet\.safetensors missing"):
        load_extractor(ModelSettings(model="mini", weights=str(WEIGHTS.parent)), CPU, offline=True)


def test_the_users_of_semantic_mode_are_told_what_it_is() -> None:
    assert "not meaning" in EXTRACTORS["mini"].warnings["semantic"]


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
