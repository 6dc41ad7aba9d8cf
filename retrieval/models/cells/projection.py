"""From the histograms of cells to Q, K and V."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.models.cells.histograms import LAB_SIZE
from retrieval.models.cells.values import MATCH_PATTERNS, match_features, weighted
from retrieval.models.modes import CellValues
from retrieval.scoring.aas import QKV


@dataclass(frozen=True)
class CellProjection:
    """From the square roots of cell histograms, ``[items, 1, cells, 214]``, to the tensors of the model cells.

    An index stores the roots, because scores read roots: there the equal steps of an int8 change a score least.
    """

    values: CellValues

    def __call__(self, hidden: Tensor) -> QKV:
        """See :class:`retrieval.models.protocols.Projection`."""
        histograms = hidden.squeeze(1).square()
        return project_cells(histograms[..., :LAB_SIZE], histograms[..., LAB_SIZE:], self.values)

    def to(self, device: torch.device | str) -> "CellProjection":
        """See :class:`retrieval.models.protocols.Projection`."""
        return self

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the three numbers of :class:`CellValues`; see :class:`retrieval.models.protocols.Projection`."""
        return {name: np.array(value) for name, value in asdict(self.values).items()}


def project_cells(lab: Tensor, lbp: Tensor, values: CellValues) -> QKV:
    """Return the tensors ``[items, 1, 1, cells, 214]`` of the layer ``cells`` from the cells' two histograms."""
    features = match_features(torch.cat([lab, MATCH_PATTERNS * lbp], dim=-1), values.sharpness)[:, None, None]
    return QKV(features, features, weighted(lab, lbp, values)[:, None, None])
