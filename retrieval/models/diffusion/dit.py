"""DiffSim on DiT-XL/2: images to the Q/K/V of one transformer block, through diffusers' DiT.

There are two branches, [ImageNet class 1, no class], in the published order. The published code adds noise at one
level and gives the network the timestep of another, each on its own schedule (:func:`published_level`). By default
both are ``timestep = 1001 - denoising_step`` on DiT's own schedule (:func:`sound_level`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.devices.selection import choose_dtype, dtype_name
from retrieval.devices.transfer import to_device
from retrieval.errors import ModelError, UsageError
from retrieval.models.capture import capture_branches
from retrieval.models.descriptions import ExtractorDescription
from retrieval.models.diffusion.base import DiffusionExtractor, load_part, load_vae
from retrieval.models.diffusion.dit_checkpoint import load_original, read_checkpoint, stated_heads
from retrieval.models.diffusion.noise import add_noise
from retrieval.models.modes import LAST_STEP, Target
from retrieval.models.registry import VAE
from retrieval.models.weights.digest import tensors_digest
from retrieval.models.weights.finding import Weights, find_local, find_weights
from retrieval.settings import ModelSettings

STEPS = 1000
CLASSES = (1, 1000)  # goldfish, and the null class


def load(description: ExtractorDescription, settings: ModelSettings, device: torch.device, offline: bool) -> "DiT":
    """Load a DiT and its VAE.

    A local folder holds ``vae/`` and either diffusers' ``transformer/`` or one original checkpoint (``*.pt``,
    ``*.safetensors``; with a ``config.json`` where its ``num_attention_heads`` are not 16).

    Raises:
        UsageError: an image size other than the checkpoint's.
        ModelError: weights are missing or incomplete.
    """
    local = None if settings.weights is None else Path(settings.weights)
    vae_folder = None if local is None else _vae_folder(description, local)
    dtype = choose_dtype(settings.dtype, device)
    if local is None or (local / "transformer").is_dir():
        network, digest = _load_network(find_weights(description, local, offline), dtype)
    else:
        network, digest = _load_checkpoint(local, dtype)
    vae = find_weights(VAE, vae_folder, offline)
    size = settings.image_size or description.image_size
    if size != 8 * network.config.sample_size:
        raise UsageError(f"image size {size} does not suit this DiT: it takes {8 * network.config.sample_size} only")
    return DiT(
        network=_as_trained(network).to(device),
        vae=load_vae(vae[""], "DiT", torch.float32).to(device),
        digests=(digest, vae.digest()),
        settings=settings,
    )


class DiT(DiffusionExtractor):
    """An AttentionExtractor; layers are named by their number, "0" to "27"."""

    def __init__(self, *, network: Any, vae: Any, digests: tuple[str, str], settings: ModelSettings) -> None:
        """Take loaded parts; ``digests`` identify the weights of the network and of the VAE."""
        side = 8 * network.config.sample_size
        super().__init__(vae=vae, image_size=side, noise=settings.noise or "pairwise", seed=settings.seed)
        self._network, self._digests, self._settings = network, digests, settings
        self._published = settings.parity == "published"
        self._classes = CLASSES if settings.branches == "both" else CLASSES[:1]

    def attention(self, layer: str) -> Any:
        """Return the self-attention module of the block ``layer``; an unknown number is a UsageError."""
        blocks = {str(number): block.attn1 for number, block in enumerate(self._network.transformer_blocks)}
        if layer not in blocks:
            raise UsageError(f"unknown layer '{layer}' of DiT; known: 0 to {len(blocks) - 1}")
        return blocks[layer]

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        """See :class:`retrieval.models.protocols.HiddenExtractor`."""
        side = self._network.config.sample_size // self._network.config.patch_size
        return len(self._classes), side**2, self.attention(target.layer).to_q.in_features

    def _level(self, timestep: int) -> tuple[float, int]:
        step = LAST_STEP - timestep
        return published_level(step) if self._published else sound_level(step)

    def _noised(self, latent: Tensor, noise: Tensor, timestep: int) -> Tensor:
        return add_noise(latent, noise, self._level(timestep)[0]).to(self._network.dtype)

    def _read(self, noisy: Tensor, timestep: int, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        images, branches = len(noisy), len(self._classes)
        labels = to_device(np.array(self._classes), noisy.device).repeat(images)
        steps = torch.full((images * branches,), self._level(timestep)[1], device=noisy.device)
        sample = noisy.repeat_interleave(branches, dim=0)
        return capture_branches(
            run=lambda: self._network(sample, timestep=steps, class_labels=labels),
            layers=modules,
            shape=(images, branches),
        )

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`."""
        return {
            "name": "dit",
            "weights": list(self._digests),
            "image_size": self._image_size,
            "branches": self._settings.branches,
            "noise": self._noise,
            "seed": self._settings.seed,
            "published": self._published,
            "dtype": dtype_name(self._network.dtype),
        }


def sound_level(denoising_step: int) -> tuple[float, int]:
    """Return (alpha bar, timestep) for ``timestep = 1001 - denoising_step`` on DiT's linear schedule."""
    timestep = min(STEPS - 1, STEPS + 1 - denoising_step)
    alpha_bars = torch.cumprod(1.0 - torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64), dim=0)
    return float(alpha_bars[timestep]), timestep


def published_level(denoising_step: int) -> tuple[float, int]:
    """Return (alpha bar of the noise, timestep for the network) as in the published code.

    Noise is added at timestep ``denoising_step`` of SD 1.5's schedule, so a higher number is MORE noise here. The
    network is given step ``1000 - denoising_step`` of a schedule respaced to ``denoising_step`` steps.

    Raises:
        UsageError: a step that the respaced schedule does not have.
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS) ** 2
    alpha_bar = float(torch.cumprod(1.0 - betas, dim=0)[denoising_step])
    position = STEPS - denoising_step
    if position >= denoising_step:
        raise UsageError(f"the published DiT code has no denoising step {denoising_step}: 501 to 999 are possible")
    stride, at = (STEPS - 1) / (denoising_step - 1), 0.0
    for _ in range(position):  # a sum, because a product would round differently from the original
        at += stride
    return alpha_bar, round(at)


def _vae_folder(description: ExtractorDescription, folder: Path) -> Path:
    find_local(description, folder, ())  # the folder itself
    if not (folder / "vae").is_dir():
        raise ModelError(f"{folder} holds no weights of {description.name}: vae missing")
    return folder / "vae"


def _load_network(weights: Weights, dtype: torch.dtype) -> tuple[Any, str]:
    """Return diffusers' DiT and the digest of its weights."""
    from diffusers import DiTTransformer2DModel

    return load_part(DiTTransformer2DModel, weights["transformer"], "DiT", dtype), weights.digest()


def _load_checkpoint(folder: Path, dtype: torch.dtype) -> tuple[Any, str]:
    """Return the same for an original checkpoint in ``folder``."""
    tensors = read_checkpoint(folder)
    network = load_original(tensors, stated_heads(folder))
    return network if dtype == torch.float32 else network.to(dtype), tensors_digest(tensors)


def _as_trained(network: Any) -> Any:
    """Set the values that DiT was trained with, and that diffusers has otherwise.

    It spaces the timestep's frequencies differently (half - 1) and normalises with another eps.
    """
    for block in network.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
        block.norm3.eps = 1e-6
    return network.eval().requires_grad_(False)
