"""Colour histograms in RGB and Lab as metrics."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retrieval.images.preprocessing import resize_square
from retrieval.metrics.base import MetricSettings
from retrieval.metrics.features import FlatMetric
from retrieval.metrics.registry import MetricDescription
from retrieval.models.cells.histograms import lab_histograms, to_lab
from retrieval.models.protocols import Pixels
from retrieval.types import Role

HISTOGRAM_SIZE = 144  # pixels a side
RGB_BINS = 8


def load_rgb_histogram(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "HistogramMetric":
    """Return the RGB histogram; it has no weights."""
    return HistogramMetric("rgb-hist", rgb_histogram)


def load_lab_histogram(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "HistogramMetric":
    """Return the Lab histogram; it has no weights."""
    return HistogramMetric("lab-hist", lab_histogram)


class HistogramMetric(FlatMetric):
    """Bhattacharyya coefficient of two histograms: the cosine of their square roots. A trivial baseline."""

    one_role = True

    def __init__(self, name: str, histogram: Callable[[Pixels], NDArray[np.float64]]) -> None:
        """Take a function from ``[H, W, 3]`` to a histogram that sums to 1."""
        super().__init__()
        self._name, self._histogram = name, histogram

    def vectors(self, images: Sequence[Image.Image], role: Role) -> Tensor:
        """Return ``[images, bins]``."""
        rows = [np.sqrt(self._histogram(resize_square(image, HISTOGRAM_SIZE))) for image in images]
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.base.Metric`; raise the version when a number above changes."""
        return {"name": self._name, "size": HISTOGRAM_SIZE, "version": 1}


def lab_histogram(rgb: Pixels) -> NDArray[np.float64]:
    """Return the soft Lab histogram of ``[S, S, 3]`` uint8: float64 ``[180]``, summing to 1."""
    shares: NDArray[np.float64] = lab_histograms(to_lab(pixels_of(rgb)), 1)[0, 0].double().numpy()
    return shares


def pixels_of(rgb: Pixels) -> Tensor:
    """Return ``[H, W, 3]`` uint8 as a batch of one, ``[1, 3, H, W]``."""
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None]


def rgb_histogram(rgb: Pixels) -> NDArray[np.float64]:
    """Return the joint histogram of ``[H, W, 3]`` uint8: float64 ``[512]``, summing to 1."""
    r, g, b = (rgb.reshape(-1, 3) // (256 // RGB_BINS)).astype(np.int64).T
    counts = np.bincount((r * RGB_BINS + g) * RGB_BINS + b, minlength=RGB_BINS**3)
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares
