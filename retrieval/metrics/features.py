"""Take rows of features, and put features together."""

from collections.abc import Sequence

import torch

from retrieval.metrics import Features


def count(features: Features) -> int:
    """Return how many images the features are of."""
    return int(next(iter(features.values())).shape[0])


def select(features: Features, rows: Sequence[int] | slice) -> Features:
    """Return the features of some images, in the order of ``rows``."""
    chosen = rows if isinstance(rows, slice) else list(rows)
    return {name: tensor[chosen] for name, tensor in features.items()}


def join(parts: Sequence[Features]) -> Features:
    """Return the features of all images of ``parts``, which name the same tensors, in their order."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
