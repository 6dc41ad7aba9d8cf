"""Foreground feature averaging (CUTE; Kotar et al., 2023): DINOv2's patch tokens, averaged over the subject.

The subject's mask comes from the package rembg, which is no dependency of this project (the authors' carvekit pulls
an old torch). The background is blackened before the network sees it, which they call "Crop-Feat".
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from retrieval.backbones.vit import DINOV2_PREPROCESSING
from retrieval.backbones.weights import load_pretrained, quiet_loading, require, weights_digest, weights_folder
from retrieval.metrics import MetricDescription, MetricSettings
from retrieval.metrics.packages import need_package
from retrieval.metrics.vectors import FlatMetric
from retrieval.vocabulary import Role

SIZE = 336  # pixels a side, of the published code
FILES = ("config.json", "model.safetensors")

Cut = Callable[[Image.Image], Image.Image]
"""From an RGB image to its subject's mask, mode L, of the same size."""


def load(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "ForegroundAverage":
    """Load DINOv2 ViT-B/14, and rembg to find the subject.

    Raises:
        DependencyError: rembg is not installed.
        ModelError: weights are missing or incomplete.
    """
    package = need_package("rembg", description.name)
    local = None if settings.weights is None else Path(settings.weights)
    folder = weights_folder(description, local, FILES, offline)
    return ForegroundAverage(load_network(folder, device), folder, settings.image_size or SIZE, _cut_by(package))


def load_network(folder: Path, device: torch.device) -> Any:
    """Load DINOv2 from ``folder``."""
    from transformers import Dinov2Model

    require(folder, ("config.json",), "DINOv2 model")
    with quiet_loading():
        return load_pretrained(Dinov2Model, folder, "DINOv2", dtype=torch.float32).to(device)


def _cut_by(package: Any) -> Cut:
    def cut(image: Image.Image) -> Image.Image:
        mask: Image.Image = package.remove(image, only_mask=True)
        return mask.convert("L")

    return cut


class ForegroundAverage(FlatMetric):
    """Mean of the final patch tokens under the mask, compared by cosine."""

    one_role = True
    batch_size = 4

    def __init__(self, network: Any, folder: Path, image_size: int, cut: Cut) -> None:
        """Take a loaded DINOv2 and what finds a subject."""
        super().__init__()
        self._network, self._folder, self._cut = network, folder, cut
        patch = network.config.patch_size
        self._grid = image_size // patch
        self._size = self._grid * patch

    @torch.inference_mode()
    def vectors(self, images: Sequence[Image.Image], role: Role) -> Tensor:
        """Return ``[images, width]``."""
        masks = [self._cut(image) for image in images]
        pixels = torch.stack([self._pixels(image, mask) for image, mask in zip(images, masks, strict=True)])
        tokens: Tensor = self._network(pixel_values=pixels.to(self._network.device)).last_hidden_state[:, 1:]
        weights = torch.stack([self._weights(mask) for mask in masks]).to(tokens)
        averages: Tensor = (tokens * weights.unsqueeze(2)).sum(dim=1) / weights.sum(dim=1, keepdim=True)
        return averages

    def _pixels(self, image: Image.Image, mask: Image.Image) -> Tensor:
        subject = Image.composite(image, Image.new("RGB", image.size), mask.point(lambda value: 255 * (value > 0)))
        array = np.array(subject.resize((self._size, self._size), Image.Resampling.BICUBIC), np.float32) / 255.0
        rules = DINOV2_PREPROCESSING
        normalised = (array - np.array(rules.mean, np.float32)) / np.array(rules.std, np.float32)
        return torch.from_numpy(normalised.transpose(2, 0, 1))

    def _weights(self, mask: Image.Image) -> Tensor:
        """Return 1 for every patch that the subject covers for the most part; all where there is no subject."""
        covered = mask.point(lambda value: 255 * (value > 0)).resize(
            (self._grid, self._grid), Image.Resampling.BILINEAR
        )
        chosen = torch.from_numpy(np.array(covered, np.float32) / 255.0 > 0.5).flatten()
        return (chosen if bool(chosen.any()) else torch.ones_like(chosen)).float()

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.Metric`."""
        return {"name": "ffa", "weights": weights_digest(self._folder), "size": self._size, "mask": "rembg"}
