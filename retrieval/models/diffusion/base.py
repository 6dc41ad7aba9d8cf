"""The parts that all diffusion models here share: loading, prompts, and the way from pixels to a layer's input.

An image is resized to a square, encoded once by the VAE, and noised once for each timestep. One network pass for each
timestep then stops right behind the last layer that was asked for.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from retrieval.errors import UsageError
from retrieval.images.preprocessing import resize_square
from retrieval.models.capture import LayerInputs
from retrieval.models.diffusion.latents import sampled_latent
from retrieval.models.modes import Target
from retrieval.models.protocols import Pixels
from retrieval.models.weights.finding import Weights
from retrieval.models.weights.loading import load_pretrained
from retrieval.models.weights.parts import FoundPart
from retrieval.models.weights.reading import model_errors
from retrieval.types import NoiseRule, Role


class DiffusionExtractor(LayerInputs):
    """An AttentionExtractor over a diffusion model; subclasses say how to add noise and how to run the network."""

    def __init__(self, *, vae: Any, image_size: int, noise: NoiseRule, seed: int) -> None:
        """Take a loaded VAE, the pixels of a side, and the rule and seed of the random draws."""
        self._vae, self._image_size = vae, image_size
        self._noise: NoiseRule = noise
        self._seed = seed

    def prepare(self, image: Image.Image) -> Pixels:
        """Return ``[S, S, 3]``: Lanczos to a square, as published."""
        return resize_square(image, self._image_size)

    @torch.inference_mode()
    def hidden(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, Tensor]:
        """See :class:`retrieval.models.protocols.HiddenExtractor`.

        Raises:
            UsageError: an unknown layer.
        """
        modules = {target.layer: self.attention(target.layer) for target in targets}
        noisy = self.noisy_latents(pixels, [target.timestep for target in targets], role)
        found: dict[Target, Tensor] = {}
        for timestep, group in by_timestep(targets):
            tensors = self._read(noisy[timestep], timestep, {target.layer: modules[target.layer] for target in group})
            found |= {target: tensors[target.layer] for target in group}
        return found

    def noisy_latents(self, pixels: Pixels, timesteps: Sequence[int], role: Role) -> dict[int, Tensor]:
        """Return noisy latents ``[images, 4, S/8, S/8]`` by timestep; the VAE runs once."""
        latent, noise = sampled_latent(self._vae, pixels, role, self._noise, self._seed)
        return {timestep: self._noised(latent, noise, timestep) for timestep in dict.fromkeys(timesteps)}

    @abstractmethod
    def _noised(self, latent: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """Add ``noise`` to ``latent``, both ``[images, 4, S/8, S/8]``, as the model's scheduler does."""

    @abstractmethod
    def _read(self, noisy: Tensor, timestep: int, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Run the network and return the inputs ``[images, branches, tokens, width]`` of ``modules`` by name."""


def by_timestep(targets: Sequence[Target]) -> list[tuple[int, list[Target]]]:
    """Return the targets grouped by timestep, in rising order: one network pass serves a group."""

    def timestep(target: Target) -> int:
        return target.timestep

    return [(number, list(group)) for number, group in groupby(sorted(targets, key=timestep), key=timestep)]


def check_size(size: int, model: str) -> None:
    """Raise a UsageError unless the VAE and the UNet can halve ``size`` as often as they need to."""
    if size <= 0 or size % 64:
        raise UsageError(f"image size {size} does not suit {model}: it must be a positive multiple of 64")


def load_unet(weights: Weights, model: str, dtype: torch.dtype) -> Any:
    """Load the UNet; ``model`` is the name for messages.

    Raises:
        ModelError: the weights can't be read or are incomplete.
    """
    from diffusers import UNet2DConditionModel

    return load_part(UNet2DConditionModel, weights["unet"], f"the unet of {model}", dtype)


def load_vae(found: FoundPart, model: str, dtype: torch.dtype) -> Any:
    """Load a VAE without its decoder, because images are never decoded. See :func:`load_unet`."""
    from diffusers import AutoencoderKL

    vae = load_part(AutoencoderKL, found, f"the vae of {model}", dtype)
    vae.decoder, vae.post_quant_conv = nn.Identity(), None
    return vae


def load_part(kind: Any, found: FoundPart, what: str, dtype: torch.dtype) -> Any:
    """Load a network of diffusers; ``what`` is its name for messages. See :func:`load_unet`."""
    return load_pretrained(kind, found, what, torch_dtype=dtype, low_cpu_mem_usage=False)


def load_scheduler(kind: Any, folder: Path) -> Any:
    """Read the scheduler's configuration below ``folder``.

    Raises:
        ModelError: the configuration can't be read.
    """
    with model_errors(f"{folder / 'scheduler'} can't be loaded"):
        return kind.from_pretrained(folder, subfolder="scheduler")


@dataclass(frozen=True)
class TextEncoder:
    """Where a model keeps a text encoder: two folders, and the class of the second one's network."""

    tokenizer: str
    encoder: str
    kind: Any


def encode_prompts(
    text: TextEncoder, weights: Weights, model: str, prompts: Sequence[str], placed: tuple[torch.device, torch.dtype]
) -> Any:
    """Load a text encoder, run it on ``prompts``, and return its output with all hidden states.

    Nothing is kept of the encoder: a model needs only a few embeddings.

    Args:
        text: the tokenizer and the encoder to load.
        weights: the model's parts.
        model: the model's name, for messages.
        prompts: padded and cut to the tokenizer's length, 77 tokens.
        placed: the device and the dtype that the encoder runs in.

    Raises:
        ModelError: the tokenizer or the encoder can't be loaded.
    """
    from transformers import CLIPTokenizer

    folder, (device, dtype) = weights[text.tokenizer].folder, placed
    with model_errors(f"the {text.tokenizer} of {model} can't be loaded from {folder}"):
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    encoder = load_pretrained(text.kind, weights[text.encoder], f"the {text.encoder} of {model}", dtype=dtype)
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        return encoder.to(device)(tokens.input_ids.to(device), output_hidden_states=True)
