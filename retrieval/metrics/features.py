"""Select and join features, and the base class of metrics on one vector per image."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retrieval.metrics.base import Features, Metric
from retrieval.scoring.aas import higher_is_closer
from retrieval.scoring.outputs import compare
from retrieval.types import Role, Similarity


def count(features: Features) -> int:
    """Return the number of images."""
    return int(next(iter(features.values())).shape[0])


def select(features: Features, rows: Sequence[int] | slice) -> Features:
    """Return the features of some images, in the order of ``rows``."""
    chosen = rows if isinstance(rows, slice) else list(rows)
    return {name: tensor[chosen] for name, tensor in features.items()}


def join(parts: Sequence[Features]) -> Features:
    """Concatenate ``parts``, which hold the same names."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class FlatMetric(Metric):
    """A metric with one vector per image, compared by cosine or mean squared error."""

    def __init__(self, similarity: Similarity = "cosine") -> None:
        """Compare by ``similarity``."""
        self._similarity: Similarity = similarity
        self.higher_is_closer = higher_is_closer(similarity)

    @abstractmethod
    def vectors(self, images: Sequence[Image.Image], role: Role) -> Tensor:
        """Return ``[images, dim]``, any float dtype."""

    def encode(self, images: Sequence[Image.Image], role: Role) -> Features:
        """See :class:`retrieval.metrics.base.Metric`."""
        return {"vector": self.vectors(images, role).cpu()}

    def score(self, query: Features, gallery: Features) -> NDArray[np.float32]:
        """See :class:`retrieval.metrics.base.Metric`."""
        others = gallery["vector"].float()
        scores: NDArray[np.float32] = compare(query["vector"].float(), others, self._similarity).numpy()
        return scores
