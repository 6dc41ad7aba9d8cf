"""The embedded model: its network against diffusers', its descriptor against scikit-image, its extractor's rules."""

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.aas import aligned_attention_scores
from retrieval.backbones import EXTRACTORS, load_extractor
from retrieval.backbones.descriptor import Descriptor, describe, grey, lab_histogram, to_lab, uniform_patterns
from retrieval.errors import UsageError
from retrieval.mini.unet import MiniUNet, UNetShape, fold
from retrieval.modes import MINI_MODES, Target
from retrieval.settings import ModelSettings

CPU = torch.device("cpu")


def photo(seed: int, size: int = 160) -> np.ndarray:
    """A smooth random picture with an edge: something like an image."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    image = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC)).copy()
    image[size // 3 :, size // 2 :] //= 2
    return image


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


def test_the_shipped_weights_denoise() -> None:
    """Guards the weights file, the noise schedule and the pixel range: a wrong one of them predicts no noise."""
    extractor = load_extractor(ModelSettings(model="mini"), CPU, offline=True)
    images = torch.from_numpy(np.stack([photo(seed, 96) for seed in range(8)]).transpose(0, 3, 1, 2)) / 127.5 - 1
    noise = torch.randn((8, 48, 24, 24), generator=torch.Generator().manual_seed(1))
    alpha = float(extractor._alpha_bars[300])  # type: ignore[attr-defined]
    noisy = alpha**0.5 * fold(images, 4) + (1 - alpha) ** 0.5 * noise
    with torch.inference_mode():
        predicted = extractor._network(noisy, torch.full((8,), 300))  # type: ignore[attr-defined]
    assert torch.nn.functional.mse_loss(predicted, noise).item() < 0.3  # predicting nothing scores 1.0


def test_tensors_have_one_branch_and_the_layers_shape() -> None:
    extractor = load_extractor(ModelSettings(model="mini"), CPU, offline=True)
    pixels = np.stack([extractor.prepare(Image.fromarray(photo(n))) for n in range(2)])
    targets = [Target("U_1", 50), Target("M", 50), Target("U_1", 300)]
    found = extractor.extract(pixels, targets, "query")
    assert found[targets[0]].q.shape == (2, 1, 3, 144, 32)
    assert found[targets[1]].q.shape == (2, 1, 5, 36, 32)
    assert not torch.equal(found[targets[0]].q, found[targets[2]].q)


def test_an_image_scores_one_with_itself_and_less_with_another() -> None:
    extractor = load_extractor(ModelSettings(model="mini"), CPU, offline=True)
    pixels = np.stack([extractor.prepare(Image.fromarray(photo(n))) for n in range(2)])
    target = MINI_MODES["instance"].target
    query, gallery = (extractor.extract(pixels, [target], role)[target] for role in ("query", "gallery"))
    scores = aligned_attention_scores(query[:1], gallery)
    assert scores[0].item() == pytest.approx(1.0, abs=1e-5)
    assert scores[1].item() < 0.98


def test_wrong_layers_and_sizes_are_told() -> None:
    extractor = load_extractor(ModelSettings(model="mini"), CPU, offline=True)
    with pytest.raises(UsageError, match="D_1, D_2, M, U_0, U_1"):
        extractor.extract(np.zeros((1, 96, 96, 3), np.uint8), [Target("D_0", 50)], "query")
    with pytest.raises(UsageError, match="multiple of 16"):
        load_extractor(ModelSettings(model="mini", image_size=100), CPU, offline=True)


def test_the_users_of_semantic_mode_are_told_what_it_is() -> None:
    assert "not meaning" in EXTRACTORS["mini"].warnings["semantic"]


def test_lab_and_patterns_are_scikit_images() -> None:
    from skimage.color import rgb2lab
    from skimage.feature import local_binary_pattern

    rgb = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    np.testing.assert_allclose(to_lab(rgb), rgb2lab(rgb), atol=1e-3)
    for points, radius in ((8, 1.0), (8, 2.0), (12, 3.0)):
        expected = local_binary_pattern(grey(rgb).astype(np.uint8), points, radius, "uniform")
        assert (uniform_patterns(grey(rgb), points, radius) == expected).mean() > 0.995


def test_a_flat_area_is_one_pattern_not_noise() -> None:
    codes = uniform_patterns(np.full((20, 20), 37, np.float32), 8, 2.0)
    assert np.unique(codes[4:-4, 4:-4]).tolist() == [8]


def test_the_descriptor_sees_colour_and_texture() -> None:
    image = photo(1)
    assert lab_histogram(image).sum() == pytest.approx(1.0)
    vector = describe(image)
    assert vector.shape == (214,)
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-6)
    rng = np.random.default_rng(3)
    shuffled = rng.permutation(image.reshape(-1, 3)).reshape(image.shape)  # same colours, another texture
    recoloured = image[..., ::-1]  # same texture, other colours
    same = float(vector @ describe(np.flip(image, axis=1)))
    assert same > float(vector @ describe(shuffled)) + 0.02
    assert same > float(vector @ describe(recoloured)) + 0.02
    assert Descriptor().embed(np.stack([image, shuffled])).shape == (2, 214)
