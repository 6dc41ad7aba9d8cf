"""DiffSim-S on SD-XL: images to the self-attention Q/K/V of its UNet.

The scheduler is Euler's: it adds noise as ``z + sigma n``, and the network sees ``(z + sigma n) / sqrt(sigma² + 1)``.
The published code first multiplies the image's latent by the scheduler's ``init_noise_sigma`` (14.6), which a pipeline
does to pure noise. ``parity="published"`` does the same.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.devices.selection import choose_dtype, dtype_name, place_model
from retrieval.devices.transfer import to_device
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
from retrieval.models.diffusion.latents import scalar_on_device
from retrieval.models.modes import LAST_STEP, SDXL_LAST_STEP, Target
from retrieval.models.weights.finding import Weights, find_weights
from retrieval.settings import ModelSettings

STEPS = 1000


def load(
    description: ExtractorDescription, settings: ModelSettings, device: torch.device, offline: bool
) -> "StableDiffusionXL":
    """Load VAE, UNet and two prompt embeddings; the text encoders are dropped again. The VAE runs in float32.

    Raises:
        UsageError: an image size that the model can't take.
        ModelError: weights are missing or incomplete.
    """
    size = settings.image_size or description.image_size
    check_size(size, "SD-XL")
    local = None if settings.weights is None else Path(settings.weights)
    weights = find_weights(description, local, offline)
    dtype = choose_dtype(settings.dtype, device)
    return StableDiffusionXL(
        weights=weights,
        unet=place_model(load_unet(weights, "SD-XL", dtype), device, dtype),
        vae=load_vae(weights["vae"], "SD-XL", torch.float32).to(device),
        prompts=_embed_prompts(weights, settings.prompt, device, dtype),
        scheduler=_scheduler(weights.root),
        settings=settings,
        image_size=size,
    )


class StableDiffusionXL(DiffusionExtractor):
    """An AttentionExtractor with two branches, [unconditional, conditional].

    Layers: ``D_b`` over down_blocks[1:], ``M``, ``U_b`` over up_blocks[:-1], for the last transformer block of the
    last attention; ``U_0.2.9`` (``M.0.9``) names attention and transformer block.
    """

    def __init__(
        self,
        *,
        weights: Weights,
        unet: Any,
        vae: Any,
        prompts: tuple[Tensor, Tensor],
        scheduler: Any,
        settings: ModelSettings,
        image_size: int,
    ) -> None:
        """Take loaded parts; ``prompts`` are hidden states ``[2, 77, width]`` and pooled vectors ``[2, width]``."""
        super().__init__(vae=vae, image_size=image_size, noise=settings.noise or "pairwise", seed=settings.seed)
        self._weights, self._unet, self._scheduler, self._settings = weights, unet, scheduler, settings
        self._published = settings.parity == "published"
        keep = slice(None) if settings.branches == "both" else slice(1, None)
        self._context, self._pooled = (tensor[keep] for tensor in prompts)

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        """See :class:`retrieval.models.protocols.HiddenExtractor`."""
        stages = len(self._unet.down_blocks)
        kind, _, number = target.layer.partition(".")[0].partition("_")
        block = {"D": f"down_blocks.{int(number or 0) + 1}", "M": "mid_block", "U": f"up_blocks.{number or 0}"}[kind]
        width = self.attention(target.layer).to_q.in_features
        return len(self._context), tokens_at(block, stages, self._image_size // 8), width

    def attention(self, layer: str) -> Any:
        """Return the self-attention module called ``layer``; an unknown name is a UsageError."""
        block, *numbers = layer.split(".")
        kind, _, index = block.partition("_")
        blocks = {"D": self._unet.down_blocks[1:], "U": self._unet.up_blocks[:-1], "M": [self._unet.mid_block]}
        try:
            stage = blocks[kind][int(index or 0)]
            attention, transformer = (int(number) for number in numbers) if numbers else (-1, -1)
            return stage.attentions[attention].transformer_blocks[transformer].attn1
        except (KeyError, IndexError, ValueError) as error:
            known = [f"D_{i}" for i in range(len(blocks["D"]))] + ["M"] + [f"U_{i}" for i in range(len(blocks["U"]))]
            raise UsageError(
                f"unknown layer '{layer}' of SD-XL; known: {', '.join(known)}, each also with .ATTENTION.BLOCK"
            ) from error

    def _noised(self, latent: Tensor, noise: Tensor, timestep: int) -> Tensor:
        if self._published:
            latent = latent * float(self._scheduler.init_noise_sigma)
        sigma = float(self._scheduler.sigmas[LAST_STEP - timestep])
        noisy: Tensor = (latent + sigma * noise) / (sigma**2 + 1) ** 0.5
        return noisy

    def _read(self, noisy: Tensor, timestep: int, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        images, branches = len(noisy), len(self._context)
        dtype = self._unet.dtype
        side = 8 * self._unet.config.sample_size  # the pipeline's default size, whatever the image's
        sizes = to_device(np.array([[side, side, 0, 0, side, side]], np.float32), noisy.device).to(dtype)
        sample = noisy.to(dtype).repeat_interleave(branches, dim=0)
        condition = {"text_embeds": self._pooled.repeat(images, 1), "time_ids": sizes.repeat(images * branches, 1)}
        # Euler's list of timesteps has no repeat, so the network's number is one less than the target's.
        step = scalar_on_device(SDXL_LAST_STEP - LAST_STEP + timestep, noisy.device)
        context = self._context.repeat(images, 1, 1)
        return capture_branches(
            run=lambda: self._unet(sample, step, encoder_hidden_states=context, added_cond_kwargs=condition),
            layers=modules,
            shape=(images, branches),
        )

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`."""
        return {
            "name": "sdxl",
            "weights": self._weights.digest(),
            "image_size": self._image_size,
            "branches": self._settings.branches,
            "prompt": self._settings.prompt,
            "noise": self._noise,
            "seed": self._settings.seed,
            "published": self._published,
            "dtype": dtype_name(self._unet.dtype),
        }


def _scheduler(folder: Path) -> Any:
    from diffusers import EulerDiscreteScheduler

    scheduler = load_scheduler(EulerDiscreteScheduler, folder)
    scheduler.set_timesteps(STEPS)
    return scheduler


def _embed_prompts(weights: Weights, prompt: str, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return hidden states ``[2, 77, width]`` and pooled vectors ``[2, width]``; the unconditional ones are zero."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    encoders = (
        TextEncoder("tokenizer", "text_encoder", CLIPTextModel),
        TextEncoder("tokenizer_2", "text_encoder_2", CLIPTextModelWithProjection),
    )
    outputs = [encode_prompts(text, weights, "SD-XL", [prompt], (device, dtype)) for text in encoders]
    context = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    pooled = outputs[-1][0]  # the second encoder's projected vector
    return torch.cat([torch.zeros_like(context), context]), torch.cat([torch.zeros_like(pooled), pooled])
