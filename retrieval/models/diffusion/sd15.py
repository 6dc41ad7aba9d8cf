"""DiffSim-S on Stable Diffusion 1.5: images to the self-attention Q/K/V of the UNet (paper section 3.3).

RGB, resized to a square (the aspect ratio is not kept), VAE encoded once, noised once a timestep, and one UNet
pass a timestep that stops right behind the last layer asked for.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from retrieval.devices.selection import choose_dtype, dtype_name, place_model
from retrieval.errors import ModelError, UsageError
from retrieval.images.preprocessing import resize_square
from retrieval.models.capture import LayerInputs, capture_branches, tokens_at
from retrieval.models.diffusion.latents import posterior, sampled_latent, told
from retrieval.models.diffusion.noise import add_noise
from retrieval.models.modes import Target
from retrieval.models.protocols import Pixels
from retrieval.models.registry import ExtractorDescription
from retrieval.models.weights import (
    load_pretrained,
    quiet_loading,
    require,
    variant_of,
    weights_digest,
    weights_folder,
)
from retrieval.settings import ModelSettings
from retrieval.types import Branches, NoiseRule, Role

FILES = (
    "scheduler/*",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/*",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)
PARTS = ("unet", "vae", "text_encoder")

# Names of the paper, in the order of the forward pass: path of the block inside the UNet.
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
    """Load the parts that scoring needs: VAE, UNet and two prompt embeddings. The text encoder is not kept."""
    size = settings.image_size or description.image_size
    if size <= 0 or size % 64:
        raise UsageError(f"image size {size} does not suit sd15: a positive multiple of 64 is needed")
    local = None if settings.weights is None else Path(settings.weights)
    folder = weights_folder(description, local, FILES, offline)
    require(folder, (*PARTS, "tokenizer", "scheduler"), "Stable Diffusion 1.5")
    dtype = choose_dtype(settings.dtype, device)
    return StableDiffusion15(
        folder=folder,
        unet=_load_part(folder, "unet", device, dtype),
        vae=_load_part(folder, "vae", device, dtype),
        prompts=_embed_prompts(folder, ["", settings.prompt], device, dtype),
        alpha_bars=_alpha_bars(folder),
        image_size=size,
        settings=settings,
        noise=settings.noise or description.noise,
    )


class StableDiffusion15(LayerInputs):
    """An AttentionExtractor; tensors have 1 or 2 branches, [unconditional, conditional] in that order."""

    def __init__(
        self,
        *,
        folder: Path,
        unet: Any,
        vae: Any,
        prompts: Tensor,
        alpha_bars: Tensor,
        image_size: int,
        settings: ModelSettings,
        noise: NoiseRule,
    ) -> None:
        """Take loaded parts; ``prompts`` is ``[2, 77, width]``, ``alpha_bars`` float32 ``[1000]``."""
        self._folder = folder
        self._unet, self._vae = unet, vae
        self._prompts = prompts if settings.branches == "both" else prompts[1:]
        self._alpha_bars = alpha_bars
        self._image_size = image_size
        self._settings = settings
        self._branches: Branches = settings.branches
        self._noise: NoiseRule = noise
        self._layers = {
            name: unet.get_submodule(f"{path}.attentions")[-1].transformer_blocks[-1].attn1
            for name, path in LAYERS.items()
        }

    def attention(self, layer: str) -> Any:
        """Return the self-attention module that tensors of ``layer`` are read from."""
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
        return self._branches

    def with_prompts(self, prompts: Sequence[str]) -> "dict[str, StableDiffusion15]":
        """See :class:`retrieval.models.protocols.Prompted`; the text encoder is loaded once more."""
        states = _embed_prompts(self._folder, ["", *prompts], self._unet.device, self._unet.dtype)
        found = {}
        for number, prompt in enumerate(prompts, 1):
            found[prompt] = other = copy(self)
            other._prompts = states[[0, number] if self._branches == "both" else [number]]
            other._settings = replace(self._settings, prompt=prompt)
        return found

    def prepare(self, image: Image.Image) -> Pixels:
        """Return ``[S, S, 3]``: Lanczos to a square, as published."""
        return resize_square(image, self._image_size)

    @torch.inference_mode()
    def hidden(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, Tensor]:
        """Encode once, then run one truncated UNet pass a timestep; see :class:`HiddenExtractor`."""
        unknown = sorted({target.layer for target in targets} - set(LAYERS))
        if unknown:
            raise UsageError(f"unknown layer '{unknown[0]}' of sd15; known: {', '.join(LAYERS)}")
        noisy = self.noisy_latents(pixels, [target.timestep for target in targets], role)
        found: dict[Target, Tensor] = {}
        for timestep, group in groupby(sorted(targets, key=_by_timestep), key=_by_timestep):
            hidden = self._read(noisy[timestep], timestep, [target.layer for target in group])
            found |= {Target(layer, timestep): tensor for layer, tensor in hidden.items()}
        return found

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        """See :class:`retrieval.models.protocols.HiddenExtractor`."""
        side = self._image_size // 8
        tokens = tokens_at(LAYERS[target.layer], len(self._unet.down_blocks), side)
        return len(self._prompts), tokens, self.attention(target.layer).to_q.in_features

    def noisy_latents(self, pixels: Pixels, timesteps: Sequence[int], role: Role) -> dict[int, Tensor]:
        """Encode once and noise once a timestep: latents ``[images, 4, S/8, S/8]`` by timestep."""
        latent, noise = sampled_latent(self._vae, pixels, role, self._noise, self._settings.seed)
        return {t: add_noise(latent, noise, float(self._alpha_bars[t])) for t in dict.fromkeys(timesteps)}

    def encode(self, pixels: Pixels) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the VAE's posterior, each ``[images, 4, S/8, S/8]``, unscaled."""
        return posterior(self._vae, pixels)

    def branch_inputs(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the UNet's sample and prompts: every image once a branch, the branches of one image together."""
        return noisy.repeat_interleave(len(self._prompts), dim=0), self._prompts.repeat(len(noisy), 1, 1)

    def _read(self, noisy: Tensor, timestep: int, layers: Sequence[str]) -> dict[str, Tensor]:
        images, branches = len(noisy), len(self._prompts)
        sample, prompts = self.branch_inputs(noisy)
        step = told(timestep, noisy.device)
        return capture_branches(
            run=lambda: self._unet(sample, step, encoder_hidden_states=prompts),
            layers={layer: self._layers[layer] for layer in layers},
            shape=(images, branches),
        )

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`."""
        return {
            "name": "sd15",
            "weights": weights_digest(self._folder, PARTS),
            "image_size": self._image_size,
            "resize": "square-lanczos",
            "branches": self._branches,
            "prompt": self._settings.prompt,
            "noise": self._noise,
            "seed": self._settings.seed,
            "dtype": dtype_name(self._unet.dtype),
        }


def _by_timestep(target: Target) -> int:
    return target.timestep


def _load_part(folder: Path, part: str, device: torch.device, dtype: torch.dtype) -> Any:
    import diffusers

    kinds = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}
    model = load_pretrained(
        kinds[part],
        folder,
        f"the {part} of sd15",
        subfolder=part,
        torch_dtype=dtype,
        variant=variant_of(folder / part),
        low_cpu_mem_usage=False,
    )
    if part == "vae":
        model.decoder, model.post_quant_conv = nn.Identity(), None  # images are never decoded
    return place_model(model, device, dtype)


def _embed_prompts(folder: Path, prompts: Sequence[str], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the last hidden states of ``prompts``, ``[prompts, 77, width]``."""
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"the tokenizer of sd15 can't be loaded from {folder}: {str(error).splitlines()[0]}"
        ) from error
    part = folder / "text_encoder"
    with quiet_loading():
        encoder = load_pretrained(
            CLIPTextModel, part, "the text encoder of sd15", dtype=dtype, variant=variant_of(part)
        )
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        states: Tensor = encoder.to(device)(tokens.input_ids.to(device)).last_hidden_state
    return states


def _alpha_bars(folder: Path) -> Tensor:
    from diffusers import PNDMScheduler

    try:
        scheduler: Any = PNDMScheduler
        alpha_bars: Tensor = scheduler.from_pretrained(folder, subfolder="scheduler").alphas_cumprod
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / 'scheduler'} can't be loaded: {str(error).splitlines()[0]}") from error
    return alpha_bars
