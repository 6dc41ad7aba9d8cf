"""Images to the latents of a diffusers VAE."""

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
    # torch's GroupNorm is less accurate on channels-last pixels (VAE mean 1.8e-3 off), so they are made contiguous.
    images = to_device(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), parameter.device)
    images = images.to(torch.float32) / 127.5 - 1.0
    encoded = vae.encode(images.to(parameter.dtype)).latent_dist
    return encoded.mean, encoded.std


def sampled_latent(vae: Any, pixels: Pixels, role: Role, rule: NoiseRule, seed: int) -> tuple[Tensor, Tensor]:
    """Sample and scale the latents of images, and draw the noise to add to them.

    Returns:
        latents ``[images, 4, S/8, S/8]`` and noise ``[1, 4, S/8, S/8]``, on the VAE's device and in its dtype. See
        :mod:`retrieval.models.diffusion.noise` for the draws.
    """
    mean, std = posterior(vae, pixels)
    draws = draws_for(role, rule, seed, (mean.shape[1], *mean.shape[2:]))
    found = upload({"latent": draws.latent.numpy(), "noise": draws.noise.numpy()}, mean.device)
    latent = vae.config.scaling_factor * (mean + std * found["latent"].to(mean.dtype))
    return latent, found["noise"].to(mean.dtype)


def scalar_on_device(number: int, device: torch.device) -> Tensor:
    """Return a whole number such as a timestep as an int64 tensor ``[]`` on ``device``.

    Given a plain number, diffusers makes this tensor itself and waits until the GPU has finished all earlier work.
    """
    return to_device(np.array(number, np.int64), device)
