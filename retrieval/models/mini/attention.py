"""The model mini as an AttentionExtractor.

One pass of EfficientNet-Lite0 gives two maps, and an index stores these (:mod:`~retrieval.models.mini.values`):

    object     ``[images, 1, 49, 320]``   the last stage: what things are; modes ``semantic`` and ``instance``
    surface    ``[images, 1, 36, 486]``   stages 6 and 4 and the histograms of cells: how a picture is made;
                                          modes ``style`` and ``lowlevel``
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from retrieval.devices.transfer import to_device
from retrieval.errors import UsageError
from retrieval.images.preprocessing import resize_square, resize_square_fast
from retrieval.models.cells.histograms import CELLS_VERSION, cell_histograms
from retrieval.models.cells.projection import CellProjection
from retrieval.models.cells.values import GRID
from retrieval.models.descriptions import ExtractorDescription
from retrieval.models.mini.learnt import read_learnt
from retrieval.models.mini.network import STRIDE, Lite0, read_network
from retrieval.models.mini.projection import HistogramProjection, ObjectProjection, SurfaceProjection
from retrieval.models.mini.values import MINI_VERSION, OBJECT_WIDTH, SURFACE_WIDTHS
from retrieval.models.mini.weights import SHA256, find_weights
from retrieval.models.modes import OBJECT, SURFACE, CellValues, MapValues, Target
from retrieval.models.protocols import Pixels, Projection
from retrieval.scoring.aas import QKV
from retrieval.settings import ModelSettings
from retrieval.types import Role

CELLS_SIDE = 144  # pixels a side of the image that is cut into cells, as in the model cells
LEAST_SHRINKING = 1.5  # times CELLS_SIDE: the least square that the cells' is made from


def load(
    description: ExtractorDescription, settings: ModelSettings, device: torch.device, offline: bool
) -> "MiniExtractor":
    """Load the network from its package.

    Raises:
        UsageError: an unsuitable image size, or a folder of weights.
        ModelError: the package is missing, or its file is another one.
    """
    if settings.weights is not None:
        raise UsageError(f"model mini reads its weights from a package: leave out the folder {settings.weights}")
    size = settings.image_size or description.image_size
    if size % STRIDE or size < 3 * STRIDE:
        raise UsageError(f"image size {size} does not suit mini: it must be a multiple of {STRIDE}, at least 96")
    return mini_on(device, size)


@cache
def mini_on(device: torch.device, image_size: int) -> "MiniExtractor":
    """Return the model on ``device``; callers share one network."""
    return MiniExtractor(read_network(find_weights(), device), device, image_size)


class MiniExtractor:
    """A HiddenExtractor with one branch, one head and the layers ``object`` and ``surface``."""

    side_by_side = True

    def __init__(self, network: Lite0, device: torch.device, image_size: int) -> None:
        """Take a loaded network; images get ``image_size`` pixels a side."""
        self._network, self._device, self.image_size = network, device, image_size
        self._projections: dict[Target, Projection] = {}

    def prepare(self, image: Image.Image) -> Pixels:
        """Return the network's square above that of the cells, ``[S + 144, max(S, 144), 3]``; the rest is black.

        The cells' square of a large image is made from the network's, because that has fewer pixels.
        """
        network = resize_square_fast(image, self.image_size)
        squares = network, self._cells_square(image, network)
        both = np.zeros((self.image_size + CELLS_SIDE, max(self.image_size, CELLS_SIDE), 3), np.uint8)
        both[: self.image_size, : self.image_size], both[self.image_size :, :CELLS_SIDE] = squares
        return both

    def square(self, image: Image.Image, target: Target) -> Pixels:
        """See :class:`retrieval.models.protocols.SeveralSquares`."""
        network = resize_square_fast(image, self.image_size)
        return self._cells_square(image, network) if target.layer == SURFACE else network

    def _cells_square(self, image: Image.Image, network: Pixels) -> Pixels:
        shrinks = min(image.size) >= self.image_size >= LEAST_SHRINKING * CELLS_SIDE
        return resize_square(Image.fromarray(network) if shrinks else image, CELLS_SIDE)

    @torch.inference_mode()
    def extract(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, QKV]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`."""
        return {target: self.projection(target)(h) for target, h in self.hidden(pixels, targets, role).items()}

    @torch.inference_mode()
    def hidden(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, Tensor]:
        """See :class:`retrieval.models.protocols.HiddenExtractor`; both layers come from one pass."""
        for target in targets:
            self.projection(target)  # raises for an unknown target
        side = self.image_size
        stages = self._stages(self._upload(pixels[:, :side, :side]))
        maps = {OBJECT: stages[6].flatten(2).transpose(1, 2)[:, None]}
        if any(target.layer == SURFACE for target in targets):
            maps[SURFACE] = self._surface(stages, pixels[:, side:, :CELLS_SIDE])
        return {target: maps[target.layer] for target in targets}

    def _stages(self, squares: Tensor) -> list[Tensor]:
        """Return the network's maps; a CPU takes an image at a time, because the maps of one fit in its caches."""
        if squares.device.type != "cpu":
            return self._network.stages(squares)
        each = [self._network.stages(image) for image in squares[:, None]]
        return [torch.cat(maps) for maps in zip(*each, strict=True)]

    def _surface(self, stages: Sequence[Tensor], squares: Pixels) -> Tensor:
        pooled = [_pool(stage, GRID).flatten(2).transpose(1, 2) for stage in (stages[5], stages[3])]
        histograms = torch.cat(cell_histograms(self._upload(squares), GRID), dim=-1)
        return torch.cat([*pooled, histograms.sqrt()], dim=-1)[:, None]

    def _upload(self, pixels: Pixels) -> Tensor:
        return to_device(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), self._device)

    def projection(self, target: Target) -> Projection:
        """See :class:`retrieval.models.protocols.HiddenExtractor`; an unknown target is a UsageError."""
        if target not in self._projections:
            self._projections[target] = _projection(target).to(self._device)
        return self._projections[target]

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        """See :class:`retrieval.models.protocols.HiddenExtractor`."""
        if target.layer == SURFACE:
            return 1, GRID**2, sum(SURFACE_WIDTHS)
        return 1, (self.image_size // STRIDE) ** 2, OBJECT_WIDTH

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`."""
        return {
            "name": "mini",
            "weights": SHA256,
            "version": MINI_VERSION,
            "histograms": CELLS_VERSION,
            "image_size": self.image_size,
            "resize": "square-hamming-gap2, larger by lanczos, cells from it by lanczos",
            "dtype": "float32",
        }


def _projection(target: Target) -> ObjectProjection | SurfaceProjection | HistogramProjection:
    learnt, values = read_learnt(), target.values
    if target.layer == OBJECT and isinstance(values, MapValues):
        adapt = learnt["meaning"]
        return ObjectProjection(values.sharpness, adapt if values.meaning else adapt[:, :0])
    if target.layer == SURFACE and isinstance(values, MapValues):
        return SurfaceProjection(values.sharpness, learnt["centre"])
    if target.layer == SURFACE and isinstance(values, CellValues):
        return HistogramProjection(CellProjection(values))
    if target.layer in (OBJECT, SURFACE):
        raise UsageError(f"layer '{target.layer}' of mini is read by its modes only, not at a denoising step")
    raise UsageError(f"unknown layer '{target.layer}' of mini; known: {OBJECT}, {SURFACE}")


def _pool(maps: Tensor, side: int) -> Tensor:
    """Average ``[images, channels, S, S]`` over ``side`` x ``side`` cells; a pixel counts by its part inside a cell."""
    cells = torch.arange(side, device=maps.device)[:, None] * (maps.shape[-1] / side)
    pixels = torch.arange(maps.shape[-1], device=maps.device)
    inside = (torch.minimum(cells + maps.shape[-1] / side, pixels + 1) - torch.maximum(cells, pixels)).clamp_min(0)
    mean = inside * (side / maps.shape[-1])
    return mean @ maps @ mean.T
