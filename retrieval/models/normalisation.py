"""Decoded pixels to the input of an image encoder."""

import numpy as np
import torch
from torch import Tensor

from retrieval.devices.transfer import upload
from retrieval.images.pixel_rules import PatchRules, PixelRules
from retrieval.images.preprocessing import Preprocessing
from retrieval.models.protocols import Pixels


def normalise(pixels: Pixels, rules: Preprocessing | PixelRules | PatchRules, device: torch.device) -> Tensor:
    """Return ``(x / 255 - mean) / std`` for each channel.

    Args:
        pixels: uint8 ``[images, height, width, 3]``.
        rules: the encoder's mean and standard deviation.
        device: where the result is computed.

    Returns:
        float32 ``[images, 3, height, width]``.
    """
    statistics = {"mean": rules.mean, "std": rules.std}
    arrays = {name: np.array(values, np.float32).reshape(1, 3, 1, 1) for name, values in statistics.items()}
    found = upload({"images": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), **arrays}, device)
    return (found["images"].float() / 255.0 - found["mean"]) / found["std"]
