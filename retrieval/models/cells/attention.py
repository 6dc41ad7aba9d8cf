"""The model cells as an AttentionExtractor.

An image is cut into 6 x 6 cells, and each cell is a token. The only layer, ``cells``, computes its queries, keys and
values from the cells' histograms of colour and texture (:mod:`~retrieval.models.cells.histograms`,
:mod:`~retrieval.models.cells.values`). The model has no weights, no noise and no random numbers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from retrieval.devices.transfer import to_device
from retrieval.errors import UsageError
from retrieval.images.preprocessing import resize_square
from retrieval.models.cells.histograms import CELLS_VERSION, LAB_SIZE, RINGS, cell_histograms
from retrieval.models.cells.projection import CellProjection, project_cells
from retrieval.models.cells.values import GRID
from retrieval.models.descriptions import ExtractorDescription
from retrieval.models.modes import CELLS, CellValues, Target
from retrieval.models.protocols import Pixels
from retrieval.scoring.aas import QKV
from retrieval.settings import PUBLISHED_SEED, ModelSettings
from retrieval.types import Role

MIN_SIZE = 48  # pixels a side: cells of 8 x 8, just wider than the largest ring of the patterns


def load(
    description: ExtractorDescription, settings: ModelSettings, device: torch.device, offline: bool
) -> "CellExtractor":
    """Return the model; nothing is read from disk.

    Raises:
        UsageError: an image size below :data:`MIN_SIZE`, or a folder of weights.
    """
    if settings.weights is not None:
        raise UsageError(f"model cells has no weights: leave out the folder {settings.weights}")
    size = settings.image_size or description.image_size
    if size < MIN_SIZE:
        raise UsageError(f"image size {size} does not suit cells: it must be at least {MIN_SIZE}")
    return CellExtractor(device, size)


class CellExtractor:
    """An AttentionExtractor with one branch, one head and the layer ``cells``."""

    side_by_side = True

    def __init__(self, device: torch.device, image_size: int) -> None:
        """Describe images of ``image_size`` pixels a side on ``device``."""
        self.image_size = image_size
        self._device = device

    def prepare(self, image: Image.Image) -> Pixels:
        """Return ``[S, S, 3]``."""
        return resize_square(image, self.image_size)

    @torch.inference_mode()
    def extract(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, QKV]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`."""
        wanted = {target: _values_of(target) for target in targets}
        lab, lbp = self._histograms(pixels)
        return {target: project_cells(lab, lbp, values) for target, values in wanted.items()}

    @torch.inference_mode()
    def hidden(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, Tensor]:
        """Return the roots of the cells' histograms; see :class:`retrieval.models.protocols.HiddenExtractor`."""
        for target in targets:
            _values_of(target)
        return dict.fromkeys(targets, torch.cat(self._histograms(pixels), dim=-1).sqrt()[:, None])

    def projection(self, target: Target) -> CellProjection:
        """See :class:`retrieval.models.protocols.HiddenExtractor`."""
        return CellProjection(_values_of(target))

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        """See :class:`retrieval.models.protocols.HiddenExtractor`."""
        return 1, GRID**2, LAB_SIZE + sum(points + 2 for points, _ in RINGS)

    def _histograms(self, pixels: Pixels) -> tuple[Tensor, Tensor]:
        """Return the histograms of every cell: colour ``[images, 36, 180]`` and texture ``[images, 36, 34]``."""
        images = to_device(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), self._device)
        return cell_histograms(images, GRID)

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`."""
        return {
            "name": "mini",  # the name of this model when the first indexes of it were written
            "image_size": self.image_size,
            "resize": "square-lanczos",
            "cells": CELLS_VERSION,
            # Nothing depends on the fields below. They stay, because existing indexes hold them.
            "weights": None,
            "branches": "cond",
            "noise": "shared",
            "seed": PUBLISHED_SEED,
            "dtype": "float32",
        }


def _values_of(target: Target) -> CellValues:
    """Return how the target describes cells; another layer, or a target without cell values, is a UsageError."""
    if target.layer != CELLS:
        raise UsageError(f"unknown layer '{target.layer}' of cells; known: {CELLS}")
    if not isinstance(target.values, CellValues):
        raise UsageError(f"layer '{CELLS}' of cells is read by its modes only, not at a denoising step")
    return target.values
