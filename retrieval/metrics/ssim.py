"""Structural similarity (Wang et al., 2004), a measure of image quality that serves as a trivial baseline here."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d

from retrieval.images.preprocessing import resize_square
from retrieval.metrics.base import Features, Metric, MetricSettings
from retrieval.metrics.histograms import pixels_of
from retrieval.metrics.registry import MetricDescription
from retrieval.models.cells.histograms import grey
from retrieval.types import Role

WINDOW, SIGMA = 11, 1.5  # pixels, as in the paper
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
CHUNK = 64  # images compared at a time


def load(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "StructuralSimilarity":
    """Return the metric; it has no weights."""
    return StructuralSimilarity(settings.image_size or description.image_size)


class StructuralSimilarity(Metric):
    """Mean SSIM of luma with the paper's Gaussian window; images are resized to a square and not padded."""

    one_role = True

    def __init__(self, image_size: int) -> None:
        """Compare at ``image_size`` pixels a side."""
        self._size = image_size

    def encode(self, images: Sequence[Image.Image], role: Role) -> Features:
        """Return luma ``[images, S, S]``, and its local mean and variance ``[images, S - 10, S - 10]``."""
        luma = torch.cat([grey(pixels_of(resize_square(image, self._size))) for image in images]).double()
        mean = blur(luma)
        return {"luma": luma.float(), "mean": mean.float(), "variance": (blur(luma**2) - mean**2).float()}

    def score(self, query: Features, gallery: Features) -> NDArray[np.float32]:
        """Return ``mean((2 mx my + C1)(2 cov + C2) / ((mx² + my² + C1)(vx + vy + C2)))``."""
        total = len(gallery["luma"])
        chunks = [
            _ssim(query, {name: tensor[at : at + CHUNK] for name, tensor in gallery.items()})
            for at in range(0, total, CHUNK)
        ]
        return torch.cat(chunks).numpy() if chunks else np.empty(0, np.float32)

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.base.Metric`."""
        return {"name": "ssim", "size": self._size, "version": 1}


def _ssim(query: Features, chunk: Features) -> Tensor:
    mean_a, mean_b = query["mean"], chunk["mean"]
    covariance = blur(query["luma"] * chunk["luma"]) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    structure = (2 * covariance + C2) / (query["variance"] + chunk["variance"] + C2)
    return (luminance * structure).flatten(1).mean(dim=1)


def blur(images: Tensor) -> Tensor:
    """Return Gaussian-weighted means of ``[images, H, W]`` where the window fits: ``[images, H - 10, W - 10]``."""
    offsets = torch.arange(WINDOW, dtype=images.dtype) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    rows = conv2d(images.unsqueeze(1), weights.view(1, 1, 1, -1))
    return conv2d(rows, weights.view(1, 1, -1, 1)).squeeze(1)
