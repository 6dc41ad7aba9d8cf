"""The embedded model as an AttentionExtractor: Q/K/V of a small denoising UNet on folded pixels."""

from collections.abc import Sequence
from importlib.resources import as_file, files
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from retrieval.aas import QKV
from retrieval.backbones import ExtractorDescription, Pixels
from retrieval.backbones.capture import Projections, capture_qkv
from retrieval.backbones.weights import require, weights_digest
from retrieval.device import choose_dtype, dtype_name
from retrieval.errors import ModelError, UsageError
from retrieval.images import resize_square
from retrieval.mini.unet import MiniUNet, SelfAttention, UNetShape, fold
from retrieval.modes import Target
from retrieval.noise import add_noise, draws_for
from retrieval.settings import ModelSettings
from retrieval.vocabulary import NoiseRule, Role

WEIGHTS = "unet.safetensors"


def load(
    description: ExtractorDescription, settings: ModelSettings, device: torch.device, offline: bool
) -> "MiniExtractor":
    """Load the shipped weights, or those of a local folder that holds ``unet.safetensors``."""
    from safetensors.torch import load_file

    size = settings.image_size or description.image_size
    if size < 32 or size % 16:
        raise UsageError(f"image size {size} does not suit mini: a multiple of 16, at least 32, is needed")
    network = MiniUNet(UNetShape())
    with as_file(files("retrieval.mini")) as packaged:
        folder = packaged if settings.weights is None else Path(settings.weights)
        require(folder, (WEIGHTS,), "mini model")
        try:
            network.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(f"{folder / WEIGHTS} can't be loaded: {str(error).strip().splitlines()[0]}") from error
        digest = weights_digest(folder)
    network.eval().requires_grad_(False).to(device, choose_dtype(settings.dtype, device))
    return MiniExtractor(network, digest, size, settings.seed, settings.noise or description.noise)


class MiniExtractor:
    """An AttentionExtractor with one branch."""

    def __init__(self, network: MiniUNet, digest: str, image_size: int, seed: int, noise: NoiseRule) -> None:
        self._network = network
        self._digest = digest
        self._image_size = image_size
        self._seed = seed
        self._noise: NoiseRule = noise
        self._layers = network.attention_layers()
        # The noise schedule that the weights were trained with: Stable Diffusion's.
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        self._alpha_bars = torch.cumprod(1.0 - betas, dim=0)

    def prepare(self, image: Image.Image) -> Pixels:
        """Return ``[S, S, 3]``."""
        return resize_square(image, self._image_size)

    @torch.inference_mode()
    def extract(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, QKV]:
        """Run one truncated pass a timestep; see :class:`retrieval.backbones.AttentionExtractor`."""
        unknown = sorted({target.layer for target in targets} - set(self._layers))
        if unknown:
            raise UsageError(f"unknown layer '{unknown[0]}' of mini; known: {', '.join(self._layers)}")
        weight = self._network.conv_in.weight
        images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        folded = fold(images.to(weight.device).float() / 127.5 - 1.0, UNetShape().patch)
        draws = draws_for(role, self._noise, self._seed, (folded.shape[1], *folded.shape[2:]))
        found: dict[Target, QKV] = {}
        for timestep, group in groupby(sorted(targets, key=_by_timestep), key=_by_timestep):
            noisy = add_noise(folded, draws.noise, float(self._alpha_bars[timestep])).to(weight.dtype)
            steps = torch.full((len(noisy),), timestep, device=weight.device)
            captured = capture_qkv(
                run=lambda noisy=noisy, steps=steps: self._network(noisy, steps),  # type: ignore[misc]
                layers={target.layer: self._layers[target.layer] for target in group},
                project=_project,
            )
            for layer, tensors in captured.items():
                found[Target(layer, timestep)] = QKV(*(t.unsqueeze(1) for t in tensors))
        return found

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.backbones.AttentionExtractor`."""
        return {
            "name": "mini",
            "weights": self._digest,
            "image_size": self._image_size,
            "resize": "square-lanczos",
            "branches": "cond",
            "noise": self._noise,
            "seed": self._seed,
            "dtype": dtype_name(self._network.conv_in.weight.dtype),
        }


def _by_timestep(target: Target) -> int:
    return target.timestep


def _project(attention: nn.Module, features: Tensor) -> Projections:
    assert isinstance(attention, SelfAttention)
    return attention.project(features)
