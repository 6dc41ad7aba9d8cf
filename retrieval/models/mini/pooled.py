"""A fixed descriptor of colour and texture: no weights, about ten milliseconds an image.

A soft histogram in CIE Lab (5 x 6 x 6 bins) says which colours there are; uniform local binary patterns (Ojala et
al., 2002) at three radii say how neighbouring pixels differ. The vector is the square root of both, so that its
inner product is a Bhattacharyya coefficient. ``descriptor`` takes the whole image, ``subject`` weights its cells by
their contrast to the border, as the values of mode instance are.
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
from retrieval.models.mini.cells import CELLS_VERSION, cell_histograms
from retrieval.models.mini.values import GRID, roots, weighted
from retrieval.models.modes import CellValues
from retrieval.models.protocols import Pixels
from retrieval.models.registry import Description

SIZE = 144  # pixels a side
VALUES = {"descriptor": CellValues(patterns=1.0), "subject": CellValues(patterns=0.6, contrast=1.2)}  # by encoder


def load(description: Description, folder: Path | None, device: torch.device, offline: bool) -> "Descriptor":
    """Return the descriptor that ``description`` names; it has no weights, so folder and network are passed over."""
    return Descriptor(device, VALUES[description.name])


class Descriptor:
    """An Embedder; vectors have 180 + 34 entries."""

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
        """See :class:`retrieval.models.protocols.Embedder`; the version rises when a number above changes."""
        return {"name": "descriptor", "version": 2, "cells": CELLS_VERSION, "values": asdict(self._values)}
