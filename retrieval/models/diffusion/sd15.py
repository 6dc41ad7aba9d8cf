"""DiffSim-S on Stable Diffusion 1.5: images to the self-attention Q/K/V of the UNet (paper section 3.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from retrieval.devices.selection import choose_dtype, dtype_name, place_model
from retrieval.errors import UsageError
from retrieval.models.capture import capture_branches, tokens_at
from retrieval.models.descriptions import ExtractorDescription
from retrieval.models.diffusion.base import (
    DiffusionExtractor,
    TextEncoder,
    check_size,
    encode_prompts,
    load_scheduler,
    load_unet,
    load_vae,
)
from retrieval.models.diffusion.latents import posterior, scalar_on_device
from retrieval.models.diffusion.noise import add_noise
from retrieval.models.modes import Target
from retrieval.models.protocols import Pixels
from retrieval.models.weights.finding import Weights, find_weights
from retrieval.settings import ModelSettings
from retrieval.types import Branches, NoiseRule

# The paper's names, in the order of the forward pass, and each block's path inside the UNet.
LAYERS: Mapping[str, str] = MappingProxyType(
    {
        "D_0": "down_blocks.0",
        "D_1": "down_blocks.1",
        "D_2": "down_blocks.2",
        "M": "mid_block",
        "U_0": "up_blocks.1",
        "U_1": "up_blocks.2",
        "U_2": "up_blocks.3",
    }
)


def load(
    description: ExtractorDescription, settings: ModelSettings, device: torch.device, offline: bool
) -> "StableDiffusion15":
    """Load the VAE, the UNet and two prompt embeddings; the text encoder is dropped again.

    Raises:
        UsageError: an image size that the model can't take.
        ModelError: weights are missing or incomplete.
    """
    size = settings.image_size or description.image_size
    check_size(size, "sd15")
    local = None if settings.weights is None else Path(settings.weights)
    weights = find_weights(description, local, offline)
    dtype = choose_dtype(settings.dtype, device)
    return StableDiffusion15(
        LoadedParts(
            weights=weights,
            unet=place_model(load_unet(weights, "sd15", dtype), device, dtype),
            vae=place_model(load_vae(weights["vae"], "sd15", dtype), device, dtype),
            prompts=_embed_prompts(weights, ["", settings.prompt], device, dtype),
            alpha_bars=_alpha_bars(weights.root),
            image_size=size,
            settings=settings,
            noise=settings.noise or description.noise,
        )
    )


@dataclass(frozen=True)
class LoadedParts:
    """The loaded parts of Stable Diffusion 1.5 and how to run them."""

    weights: Weights
    unet: Any
    vae: Any
    prompts: Tensor  # [2, 77, width]: the empty prompt and the prompt
    alpha_bars: Tensor  # float32 [1000]
    image_size: int  # pixels a side
    settings: ModelSettings
    noise: NoiseRule


class StableDiffusion15(DiffusionExtractor):
    """An AttentionExtractor; tensors have 1 or 2 branches, [unconditional, conditional] in that order."""

    def __init__(self, parts: LoadedParts) -> None:
        """Take loaded parts; with ``branches="cond"`` only the conditional branch is computed."""
        settings = parts.settings
        super().__init__(vae=parts.vae, image_size=parts.image_size, noise=parts.noise, seed=settings.seed)
        self._parts, self._unet = parts, parts.unet
        self._prompts = parts.prompts if settings.branches == "both" else parts.prompts[1:]
        self._layers = {
            name: self._unet.get_submodule(f"{path}.attentions")[-1].transformer_blocks[-1].attn1
            for name, path in LAYERS.items()
        }

    def attention(self, layer: str) -> Any:
        """Return the self-attention module that tensors of ``layer`` are read from; an unknown one is a UsageError."""
        if layer not in self._layers:
            raise UsageError(f"unknown layer '{layer}' of sd15; known: {', '.join(LAYERS)}")
        return self._layers[layer]

    @property
    def network(self) -> Any:
        """The UNet, for metrics that read other layers of it."""
        return self._unet

    @property
    def branches(self) -> Branches:
        """Which guidance branches are computed."""
        return self._parts.settings.branches

    def with_prompts(self, prompts: Sequence[str]) -> "dict[str, StableDiffusion15]":
        """See :class:`retrieval.models.protocols.Prompted`; this loads the text encoder once more."""
        states = _embed_prompts(self._parts.weights, ["", *prompts], self._unet.device, self._unet.dtype)
        return {
            prompt: StableDiffusion15(
                replace(self._parts, prompts=states[[0, number]], settings=replace(self._parts.settings, prompt=prompt))
            )
            for number, prompt in enumerate(prompts, 1)
        }

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        """See :class:`retrieval.models.protocols.HiddenExtractor`."""
        side = self._image_size // 8
        tokens = tokens_at(LAYERS[target.layer], len(self._unet.down_blocks), side)
        return len(self._prompts), tokens, self.attention(target.layer).to_q.in_features

    def encode(self, pixels: Pixels) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the VAE's posterior, each ``[images, 4, S/8, S/8]``, unscaled."""
        return posterior(self._vae, pixels)

    def branch_inputs(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the UNet's sample and prompts, a row for each branch of each image; an image's branches adjoin."""
        return noisy.repeat_interleave(len(self._prompts), dim=0), self._prompts.repeat(len(noisy), 1, 1)

    def _noised(self, latent: Tensor, noise: Tensor, timestep: int) -> Tensor:
        return add_noise(latent, noise, float(self._parts.alpha_bars[timestep]))

    def _read(self, noisy: Tensor, timestep: int, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        sample, prompts = self.branch_inputs(noisy)
        step = scalar_on_device(timestep, noisy.device)
        return capture_branches(
            run=lambda: self._unet(sample, step, encoder_hidden_states=prompts),
            layers=modules,
            shape=(len(noisy), len(self._prompts)),
        )

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`."""
        settings = self._parts.settings
        return {
            "name": "sd15",
            "weights": self._parts.weights.digest(),
            "image_size": self._image_size,
            "resize": "square-lanczos",
            "branches": settings.branches,
            "prompt": settings.prompt,
            "noise": self._noise,
            "seed": settings.seed,
            "dtype": dtype_name(self._unet.dtype),
        }


def _embed_prompts(weights: Weights, prompts: Sequence[str], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the last hidden states of ``prompts``, ``[prompts, 77, width]``."""
    from transformers import CLIPTextModel

    text = TextEncoder("tokenizer", "text_encoder", CLIPTextModel)
    states: Tensor = encode_prompts(text, weights, "sd15", prompts, (device, dtype)).last_hidden_state
    return states


def _alpha_bars(folder: Path) -> Tensor:
    from diffusers import PNDMScheduler

    alpha_bars: Tensor = load_scheduler(PNDMScheduler, folder).alphas_cumprod
    return alpha_bars
