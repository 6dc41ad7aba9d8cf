"""DiffSim-S on SD-XL: images to the self-attention Q/K/V of its UNet.

The scheduler is Euler's, in which noise is added as ``z + sigma n`` and the network sees
``(z + sigma n) / sqrt(sigma² + 1)``. The published code multiplies the image's latent by the scheduler's
``init_noise_sigma`` (14.6) first, as a pipeline does with pure noise: ``parity="published"`` does so too.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from retrieval.devices.selection import choose_dtype, dtype_name, place_model
from retrieval.devices.transfer import to_device
from retrieval.errors import ModelError, UsageError
from retrieval.images.preprocessing import resize_square
from retrieval.models.capture import LayerInputs, capture_branches, tokens_at
from retrieval.models.diffusion.latents import sampled_latent, told
from retrieval.models.modes import SDXL_LAST_STEP, Target
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
from retrieval.types import Role

FILES = (
    "scheduler/*",
    "text_encoder/config.json",
    "text_encoder/model.fp16.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model.fp16.safetensors",
    "tokenizer/*",
    "tokenizer_2/*",
    "unet/config.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
)
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
STEPS = 1000


def load(
    description: ExtractorDescription, settings: ModelSettings, device: torch.device, offline: bool
) -> "StableDiffusionXL":
    """Load VAE, UNet and two prompt embeddings; the text encoders are not kept. The VAE runs in float32.

    Raises:
        UsageError: an image size that the VAE can't halve often enough.
        ModelError: weights are missing or incomplete.
    """
    size = settings.image_size or description.image_size
    if size <= 0 or size % 64:
        raise UsageError(f"image size {size} does not suit SD-XL: a positive multiple of 64 is needed")
    local = None if settings.weights is None else Path(settings.weights)
    folder = weights_folder(description, local, FILES, offline)
    require(folder, (*PARTS, "tokenizer", "tokenizer_2", "scheduler"), "SD-XL")
    dtype = choose_dtype(settings.dtype, device)
    return StableDiffusionXL(
        folder=folder,
        unet=place_model(_load_part(folder, "unet", dtype), device, dtype),
        vae=_load_part(folder, "vae", torch.float32).to(device),
        prompts=_embed_prompts(folder, settings.prompt, device, dtype),
        scheduler=_scheduler(folder),
        settings=settings,
        image_size=size,
        published=settings.parity == "published",
    )


class StableDiffusionXL(LayerInputs):
    """An AttentionExtractor with two branches, [unconditional, conditional].

    Layers: ``D_b`` over down_blocks[1:], ``M``, ``U_b`` over up_blocks[:-1], for the last transformer block of the
    last attention; ``U_0.2.9`` (``M.0.9``) names attention and transformer block.
    """

    def __init__(
        self,
        *,
        folder: Path,
        unet: Any,
        vae: Any,
        prompts: tuple[Tensor, Tensor],
        scheduler: Any,
        settings: ModelSettings,
        image_size: int,
        published: bool,
    ) -> None:
        """Take loaded parts; ``prompts`` are hidden states ``[2, 77, width]`` and pooled vectors ``[2, width]``."""
        self._folder, self._unet, self._vae, self._scheduler = folder, unet, vae, scheduler
        self._settings, self._image_size, self._published = settings, image_size, published
        keep = slice(None) if settings.branches == "both" else slice(1, None)
        self._context, self._pooled = (tensor[keep] for tensor in prompts)

    def prepare(self, image: Image.Image) -> Pixels:
        """Return ``[S, S, 3]``: Lanczos to a square, as published."""
        return resize_square(image, self._image_size)

    @torch.inference_mode()
    def hidden(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, Tensor]:
        """Encode once, then run one truncated UNet pass a timestep; see :class:`HiddenExtractor`."""
        modules = {target.layer: self.attention(target.layer) for target in targets}
        latent, noise = sampled_latent(self._vae, pixels, role, self._settings.noise or "pairwise", self._settings.seed)
        if self._published:
            latent = latent * float(self._scheduler.init_noise_sigma)
        found: dict[Target, Tensor] = {}
        for step, group in groupby(sorted(targets, key=_by_step), key=_by_step):
            sigma = float(self._scheduler.sigmas[step])
            noisy = (latent + sigma * noise) / (sigma**2 + 1) ** 0.5
            chosen = list(group)
            tensors = self._read(noisy, step, {target.layer: modules[target.layer] for target in chosen})
            found |= {target: tensors[target.layer] for target in chosen}
        return found

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

    def _read(self, noisy: Tensor, step: int, modules: dict[str, Any]) -> dict[str, Tensor]:
        images, branches = len(noisy), len(self._context)
        dtype = self._unet.dtype
        side = 8 * self._unet.config.sample_size  # the pipeline's default size, whatever the image's
        sizes = to_device(np.array([[side, side, 0, 0, side, side]], np.float32), noisy.device).to(dtype)
        sample = noisy.to(dtype).repeat_interleave(branches, dim=0)
        condition = {"text_embeds": self._pooled.repeat(images, 1), "time_ids": sizes.repeat(images * branches, 1)}
        context, timestep = self._context.repeat(images, 1, 1), told(SDXL_LAST_STEP - step, noisy.device)
        return capture_branches(
            run=lambda: self._unet(sample, timestep, encoder_hidden_states=context, added_cond_kwargs=condition),
            layers=modules,
            shape=(images, branches),
        )

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`."""
        return {
            "name": "sdxl",
            "weights": weights_digest(self._folder, PARTS),
            "image_size": self._image_size,
            "branches": self._settings.branches,
            "prompt": self._settings.prompt,
            "noise": self._settings.noise or "pairwise",
            "seed": self._settings.seed,
            "published": self._published,
            "dtype": dtype_name(self._unet.dtype),
        }


def _by_step(target: Target) -> int:
    return target.denoising_step


def _load_part(folder: Path, part: str, dtype: torch.dtype) -> Any:
    import diffusers

    kinds = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}
    return load_pretrained(
        kinds[part],
        folder,
        f"the {part} of SD-XL",
        subfolder=part,
        torch_dtype=dtype,
        variant=variant_of(folder / part),
        low_cpu_mem_usage=False,
    )


def _scheduler(folder: Path) -> Any:
    from diffusers import EulerDiscreteScheduler

    try:
        untyped: Any = EulerDiscreteScheduler
        scheduler = untyped.from_pretrained(folder, subfolder="scheduler")
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / 'scheduler'} can't be loaded: {str(error).splitlines()[0]}") from error
    scheduler.set_timesteps(STEPS)
    return scheduler


def _embed_prompts(folder: Path, prompt: str, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return hidden states ``[2, 77, width]`` and pooled vectors ``[2, width]``; the unconditional ones are zero."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    kinds = (
        ("tokenizer", "text_encoder", CLIPTextModel),
        ("tokenizer_2", "text_encoder_2", CLIPTextModelWithProjection),
    )
    states, pooled = [], torch.empty(0)
    for tokenizer_part, part, kind in kinds:
        try:
            tokenizer = CLIPTokenizer.from_pretrained(folder / tokenizer_part, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(
                f"the {tokenizer_part} of SD-XL can't be loaded from {folder}: {str(error).splitlines()[0]}"
            ) from error
        with quiet_loading():
            encoder = load_pretrained(
                kind, folder / part, f"the {part} of SD-XL", dtype=dtype, variant=variant_of(folder / part)
            ).to(device)
        tokens = tokenizer(
            [prompt],
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            output = encoder(tokens.input_ids.to(device), output_hidden_states=True)
        states.append(output.hidden_states[-2])
        pooled = output[0]  # of the second encoder in the end: its projected vector
    context = torch.cat(states, dim=-1)
    return torch.cat([torch.zeros_like(context), context]), torch.cat([torch.zeros_like(pooled), pooled])
