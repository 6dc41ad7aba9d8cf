"""The Gaussian draws of the published code, and which image gets which of them.

The published pairwise score draws four standard normal tensors, in this order, from ONE generator::

    d1 = latent sample of A     d2 = latent sample of B     d3 = noise of A     d4 = noise of B

The draws never depend on the images. So a query with (d1, d3) and a gallery image with (d2, d4) score exactly as the
published pair does. An index computes the gallery's half once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from retrieval.types import NoiseRule, Role


@dataclass(frozen=True)
class Draws:
    """The two draws of one image, float32 ``[1, channels, height, width]`` in latent pixels."""

    latent: Tensor
    noise: Tensor


def draws_for(role: Role, rule: NoiseRule, seed: int, shape: tuple[int, int, int]) -> Draws:
    """Return the draws for one side of a pair.

    Args:
        role: ``query`` (image A) or ``gallery`` (image B).
        rule: see :data:`retrieval.types.NoiseRule`.
        seed: the published scripts use 2334.
        shape: ``(channels, height, width)`` of the latent.

    Returns:
        Draws made on the CPU, so that they are the same on every device.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    d1, d2, d3, d4 = (torch.randn((1, *shape), generator=generator) for _ in range(4))
    if rule == "shared":
        return Draws(latent=d1, noise=d2)
    return Draws(latent=d1, noise=d3) if role == "query" else Draws(latent=d2, noise=d4)


def add_noise(latent: Tensor, noise: Tensor, alpha_bar: float | Tensor) -> Tensor:
    """Return the forward diffusion step ``sqrt(ᾱ_t) z + sqrt(1 - ᾱ_t) n``; shapes broadcast, dtype of ``latent``."""
    noisy: Tensor = alpha_bar**0.5 * latent + (1.0 - alpha_bar) ** 0.5 * noise.to(latent)
    return noisy
