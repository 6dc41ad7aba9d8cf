"""From the maps that an index stores to Q, K and V: one class for each kind of mode."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.models.cells.projection import CellProjection
from retrieval.models.mini.learnt import digest_of, read_learnt
from retrieval.models.mini.values import (
    HISTOGRAMS_FROM,
    MATCHED,
    SURFACE_WEIGHTS,
    SURFACE_WIDTHS,
    emphasised,
    norms_of,
    queries,
    surface_blocks,
    surface_queries,
    surface_values,
)
from retrieval.models.modes import CellValues
from retrieval.scoring.aas import QKV

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ObjectProjection:
    """From the network's last map, ``[items, 1, tokens, 320]``, to what is seen: q = k = f, v = |f| f."""

    sharpness: float
    adapt: Tensor  # [320, n]: f becomes f @ adapt first; n of 0: f stays as it is

    def __call__(self, hidden: Tensor) -> QKV:
        """See :class:`retrieval.models.protocols.Projection`."""
        features = hidden[:, 0] @ self.adapt if self.adapt.shape[1] else hidden[:, 0]
        matched = queries(features, self.sharpness)[:, None, None]
        return QKV(matched, matched, emphasised(features)[:, None, None])

    def to(self, device: torch.device | str) -> "ObjectProjection":
        """See :class:`retrieval.models.protocols.Projection`."""
        return ObjectProjection(self.sharpness, self.adapt.to(device, torch.float32))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See :class:`retrieval.models.protocols.Projection`."""
        sharpness = np.array(self.sharpness)
        if self.adapt.shape[1]:  # the map of the package: naming it saves 400 kB in every index
            return {"sharpness": sharpness, "meaning": digest_of(self.adapt)}
        return {"sharpness": sharpness, "adapt": self.adapt.cpu().numpy()}


@dataclass(frozen=True)
class SurfaceProjection:
    """From surface maps, ``[items, 1, tokens, 486]``, to what style is made of."""

    sharpness: float
    centre: Tensor  # [214]: the mean roots of histograms
    widths: tuple[int, ...] = SURFACE_WIDTHS
    weights: tuple[float, ...] = SURFACE_WEIGHTS
    matched: int = MATCHED

    def __call__(self, hidden: Tensor) -> QKV:
        """See :class:`retrieval.models.protocols.Projection`."""
        blocks = surface_blocks(hidden[:, 0], self.widths, self.centre)
        norms = [norms_of(block) for block in blocks]
        matched = surface_queries(blocks[: self.matched], norms[: self.matched], self.sharpness)[:, None, None]
        return QKV(matched, matched, surface_values(blocks, norms, self.weights)[:, None, None])

    def to(self, device: torch.device | str) -> "SurfaceProjection":
        """See :class:`retrieval.models.protocols.Projection`."""
        centre = self.centre.to(device, torch.float32)
        return SurfaceProjection(self.sharpness, centre, self.widths, self.weights, self.matched)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See :class:`retrieval.models.protocols.Projection`."""
        numbers = {"sharpness": self.sharpness, "widths": self.widths, "weights": self.weights, "matched": self.matched}
        return {**{name: np.array(value) for name, value in numbers.items()}, "centre": self.centre.cpu().numpy()}


@dataclass(frozen=True)
class HistogramProjection:
    """From surface maps to the tensors of the model cells: it reads the roots of histograms alone."""

    cells: CellProjection
    first: int = HISTOGRAMS_FROM  # the first channel of the histograms

    def __call__(self, hidden: Tensor) -> QKV:
        """See :class:`retrieval.models.protocols.Projection`."""
        return self.cells(hidden[..., self.first :])

    def to(self, device: torch.device | str) -> "HistogramProjection":
        """See :class:`retrieval.models.protocols.Projection`."""
        return self

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See :class:`retrieval.models.protocols.Projection`."""
        return {**self.cells.arrays(), "first": np.array(self.first)}


def mini_projection(arrays: Arrays) -> ObjectProjection | SurfaceProjection | HistogramProjection | None:
    """Return the projection whose ``arrays()`` these are; None: another model's.

    Raises:
        KeyError, TypeError: an array is missing, or is one too many.
        ValueError: the package has another map than the index was made with.
    """
    if "meaning" in arrays:
        return ObjectProjection(float(arrays["sharpness"]), _named(arrays["meaning"]))
    if "adapt" in arrays:
        return ObjectProjection(float(arrays["sharpness"]), torch.from_numpy(arrays["adapt"]))
    if "widths" in arrays:
        return SurfaceProjection(
            float(arrays["sharpness"]),
            torch.from_numpy(arrays["centre"]),
            tuple(arrays["widths"].tolist()),
            tuple(arrays["weights"].tolist()),
            int(arrays["matched"]),
        )
    if "first" in arrays:
        cells = {name: float(value) for name, value in arrays.items() if name != "first"}
        return HistogramProjection(CellProjection(CellValues(**cells)), int(arrays["first"]))
    return None


def _named(digest: NDArray[Any]) -> Tensor:
    """Return the map of the package, which an index names by its SHA-256."""
    meaning = read_learnt()["meaning"]
    if not np.array_equal(digest, digest_of(meaning)):
        raise ValueError("it names a map of mini that this version does not have")
    return meaning
