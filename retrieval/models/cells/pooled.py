"""Two encoders of colour and texture without weights; an image takes about ten milliseconds.

The vector holds a soft CIE Lab histogram (5 x 6 x 6 bins) and uniform local binary patterns (Ojala et al., 2002) at
three radii. It is the square root of both, so that inner products are Bhattacharyya coefficients. ``descriptor``
averages the whole image; ``subject`` weights cells by their contrast to the border, as the mode ``instance`` does.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retrieval.devices.transfer import to_device
from retrieval.images.preprocessing import resize_square
from retrieval.models.cells.histograms import CELLS_VERSION, cell_histograms
from retrieval.models.cells.values import GRID, roots, weighted
from retrieval.models.descriptions import Description
from retrieval.models.modes import CellValues
from retrieval.models.protocols import Pixels

SIZE = 144  # pixels a side
VALUES = {"descriptor": CellValues(patterns=1.0), "subject": CellValues(patterns=0.6, contrast=1.2)}  # by encoder


def load(description: Description, folder: Path | None, device: torch.device, offline: bool) -> "Descriptor":
    """Return the descriptor that ``description`` names; ``folder`` and ``offline`` are ignored: it has no weights."""
    return Descriptor(device, VALUES[description.name])


class Descriptor:
    """An Embedder; vectors have 180 + 34 entries."""

    side_by_side = True

    def __init__(self, device: torch.device, values: CellValues) -> None:
        self._device = device
        self._values = values

    def prepare(self, image: Image.Image) -> Pixels:
        """Return ``[144, 144, 3]``."""
        return resize_square(image, SIZE)

    @torch.inference_mode()
    def embed(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return float32 ``[images, 214]``, rows of norm 1."""
        vectors: NDArray[np.float32] = self.vectors(pixels).cpu().numpy()
        return vectors

    def vectors(self, pixels: Pixels) -> Tensor:
        """See :class:`retrieval.models.protocols.TensorEmbedder`."""
        images = to_device(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), self._device)
        cells = weighted(*cell_histograms(images, GRID), self._values)
        return roots(cells.mean(dim=1))

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.Embedder`; raise the version when a number above changes."""
        return {"name": "descriptor", "version": 2, "cells": CELLS_VERSION, "values": asdict(self._values)}
