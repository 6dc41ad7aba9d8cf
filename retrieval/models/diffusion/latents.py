"""Images to the latents of a diffusers VAE, as every diffusion model here takes them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval.devices.transfer import to_device, upload
from retrieval.models.diffusion.noise import draws_for
from retrieval.models.protocols import Pixels
from retrieval.types import NoiseRule, Role


def posterior(vae: Any, pixels: Pixels) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the VAE's posterior, each ``[images, 4, S/8, S/8]``, unscaled."""
    parameter = next(vae.parameters())
    # Contiguous on purpose: torch's GroupNorm on channels-last pixels is less accurate (VAE mean 1.8e-3 off).
    images = to_device(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), parameter.device)
    images = images.to(torch.float32) / 127.5 - 1.0
    encoded = vae.encode(images.to(parameter.dtype)).latent_dist
    return encoded.mean, encoded.std


def sampled_latent(vae: Any, pixels: Pixels, role: Role, rule: NoiseRule, seed: int) -> tuple[Tensor, Tensor]:
    """Return latents of images, sampled and scaled, ``[images, 4, S/8, S/8]``, and the noise ``[1, ...]`` to add.

    Both are on the VAE's device and in its dtype; :mod:`retrieval.models.diffusion.noise` has the rule of the draws.
    """
    mean, std = posterior(vae, pixels)
    draws = draws_for(role, rule, seed, (mean.shape[1], *mean.shape[2:]))
    found = upload({"latent": draws.latent.numpy(), "noise": draws.noise.numpy()}, mean.device)
    latent = vae.config.scaling_factor * (mean + std * found["latent"].to(mean.dtype))
    return latent, found["noise"].to(mean.dtype)


def told(number: int, device: torch.device) -> Tensor:
    """Return a number that a network is told, such as a timestep, as int64 ``[]`` on ``device``.

    diffusers would make the tensor itself, and wait with it until the GPU has done all that it was given.
    """
    return to_device(np.array(number, np.int64), device)
