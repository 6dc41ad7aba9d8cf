"""Metrics on one flat vector an image: pooled embeddings, features without AAS, colour histograms."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retrieval.aas import compare, higher_is_closer
from retrieval.backbones import Embedder, Pixels, load_embedder
from retrieval.images import resize_square
from retrieval.metrics import Features, Metric, MetricDescription, MetricSettings
from retrieval.mini.cells import lab_histograms, to_lab
from retrieval.vocabulary import Role, Similarity

HISTOGRAM_SIZE = 144  # pixels a side
RGB_BINS = 8


def load_embedding(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "EmbeddingMetric":
    """Load CLIP or DINOv2 pooled, as the coarse stage uses them."""
    folder = None if settings.weights is None else Path(settings.weights)
    return EmbeddingMetric(load_embedder(description.name, folder, device, offline))


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


class FlatMetric(Metric):
    """One vector an image, compared by cosine or mean squared error."""

    def __init__(self, similarity: Similarity = "cosine") -> None:
        """Compare by ``similarity``."""
        self._similarity: Similarity = similarity
        self.higher_is_closer = higher_is_closer(similarity)

    @abstractmethod
    def vectors(self, images: Sequence[Image.Image], role: Role) -> Tensor:
        """Return ``[images, dim]``, any float dtype."""

    def encode(self, images: Sequence[Image.Image], role: Role) -> Features:
        """See :class:`retrieval.metrics.Metric`."""
        return {"vector": self.vectors(images, role).cpu()}

    def score(self, query: Features, gallery: Features) -> NDArray[np.float32]:
        """See :class:`retrieval.metrics.Metric`."""
        others = gallery["vector"].float()
        scores: NDArray[np.float32] = compare(query["vector"].float(), others, self._similarity).numpy()
        return scores


class EmbeddingMetric(FlatMetric):
    """Cosine of two image embeddings. The paper prints it times 100; the order is the same."""

    one_role = True

    def __init__(self, embedder: Embedder) -> None:
        """Take a loaded embedder."""
        super().__init__()
        self._embedder = embedder

    def vectors(self, images: Sequence[Image.Image], role: Role) -> Tensor:
        """Return ``[images, dim]``, rows of norm 1."""
        return torch.from_numpy(self._embedder.embed(np.stack([self._embedder.prepare(image) for image in images])))

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.Metric`."""
        return self._embedder.fingerprint()


class HistogramMetric(FlatMetric):
    """Bhattacharyya coefficient of two histograms: the cosine of their square roots. An honest trivial baseline."""

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
        """See :class:`retrieval.metrics.Metric`; the version rises when a number above changes."""
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
