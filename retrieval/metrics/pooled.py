"""The cosine of two pooled image embeddings (CLIP, DINOv2) as a metric."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from retrieval.metrics.base import MetricSettings
from retrieval.metrics.features import FlatMetric
from retrieval.metrics.registry import MetricDescription
from retrieval.models.protocols import Embedder
from retrieval.models.registry import load_embedder
from retrieval.types import Role


def load_embedding(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "EmbeddingMetric":
    """Load the encoder of the metric's name, the same one that chooses candidates in a search."""
    folder = None if settings.weights is None else Path(settings.weights)
    return EmbeddingMetric(load_embedder(description.name, folder, device, offline))


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
        """See :class:`retrieval.metrics.base.Metric`."""
        return self._embedder.fingerprint()
