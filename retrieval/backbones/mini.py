"""The embedded model as an AttentionExtractor.

A target's values are the descriptors of an image's 6 x 6 cells. For the layer ``cells``, which all shipped modes read,
queries and keys are the descriptors as well. The other layers are those of a small denoising UNet: its weights do not
travel in the package, because no mode gained by them (MODEL_CARD.md has the figures), but a folder of weights that
:mod:`retrieval.mini.train` made can be named. The AAS is the same formula for all of them.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from retrieval.aas import QKV
from retrieval.backbones import ExtractorDescription, Pixels
from retrieval.backbones.capture import Projections, capture_qkv
from retrieval.backbones.weights import require, weights_digest
from retrieval.device import choose_dtype, dtype_name
from retrieval.errors import ModelError, UsageError
from retrieval.images import resize_square
from retrieval.mini.cells import CELLS_VERSION, LAB_SIZE, RINGS, cell_histograms
from retrieval.mini.unet import MiniUNet, SelfAttention, UNetShape, fold, network_pixels
from retrieval.mini.values import GRID, weighted
from retrieval.modes import CELLS, Target
from retrieval.noise import add_noise, alpha_bars, draws_for
from retrieval.projection import CellProjection, project_cells
from retrieval.settings import ModelSettings
from retrieval.transfer import to_device
from retrieval.vocabulary import NoiseRule, Role

WEIGHTS = "unet.safetensors"
MIN_SIZE = 48  # pixels a side: cells of 8 x 8, just wider than the largest ring of the patterns


def load(
    description: ExtractorDescription, settings: ModelSettings, device: torch.device, offline: bool
) -> "MiniExtractor":
    """Load the model; the network only where ``settings.weights`` names a folder that holds ``unet.safetensors``."""
    size = settings.image_size or description.image_size
    if size < MIN_SIZE:
        raise UsageError(f"image size {size} does not suit mini: at least {MIN_SIZE} is needed")
    noise = settings.noise or description.noise
    if settings.weights is None:
        return MiniExtractor(device, size, settings.seed, noise)
    network = load_network(Path(settings.weights)).to(device, choose_dtype(settings.dtype, device))
    return MiniExtractor(device, size, settings.seed, noise, network, weights_digest(Path(settings.weights)))


def load_network(folder: Path) -> MiniUNet:
    """Load what :mod:`retrieval.mini.train` wrote, as float32.

    Raises:
        ModelError: the file is missing or damaged.
    """
    from safetensors.torch import load_file

    require(folder, (WEIGHTS,), "mini model")
    network = MiniUNet(UNetShape())
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{folder / WEIGHTS} can't be loaded: {str(error).strip().splitlines()[0]}") from error
    return network.eval().requires_grad_(False)


class MiniExtractor:
    """An AttentionExtractor with one branch; without a network it has the layer ``cells`` alone."""

    def __init__(
        self,
        device: torch.device,
        image_size: int,
        seed: int,
        noise: NoiseRule,
        network: MiniUNet | None = None,
        digest: str | None = None,
    ) -> None:
        self.image_size = image_size
        self._device = device
        self._seed = seed
        self._noise: NoiseRule = noise
        self._network = network
        self._digest = digest
        self._layers = {} if network is None else network.attention_layers()

    def prepare(self, image: Image.Image) -> Pixels:
        """Return ``[S, S, 3]``."""
        return resize_square(image, self.image_size)

    @torch.inference_mode()
    def extract(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, QKV]:
        """See :class:`retrieval.backbones.AttentionExtractor`."""
        unknown = sorted({target.layer for target in targets} - {CELLS, *self._layers})
        if unknown:
            also = "" if self._network else "; those of the network need its weights, see retrieval/mini/MODEL_CARD.md"
            raise UsageError(f"unknown layer '{unknown[0]}' of mini; known: {', '.join((CELLS, *self._layers))}{also}")
        images = to_device(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), self._device)
        layers = [target for target in targets if target.layer != CELLS]
        own = self._run(self._network, images, layers, role) if self._network and layers else {}
        if not any(target.values for target in targets):
            return own
        lab, lbp = cell_histograms(images, GRID)
        return {target: _described(target, own.get(target), lab, lbp) for target in targets}

    @torch.inference_mode()
    def hidden(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, Tensor]:
        """Return the roots of the cells' histograms; see :class:`retrieval.projection.HiddenExtractor`."""
        for target in targets:
            self.projection(target)
        images = to_device(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), self._device)
        roots = torch.cat(cell_histograms(images, GRID), dim=-1).sqrt()[:, None]
        return dict.fromkeys(targets, roots)

    def projection(self, target: Target) -> CellProjection:
        """See :class:`retrieval.projection.HiddenExtractor`."""
        if target.layer != CELLS or target.values is None:
            raise UsageError(f"layer '{target.layer}' of mini gives no layer inputs to keep: choose another codec")
        return CellProjection(target.values)

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        """See :class:`retrieval.projection.HiddenExtractor`."""
        return 1, GRID**2, LAB_SIZE + sum(points + 2 for points, _ in RINGS)

    def _run(self, network: MiniUNet, images: Tensor, targets: Sequence[Target], role: Role) -> dict[Target, QKV]:
        """Return the network's own tensors of ``targets``: one truncated pass a timestep."""
        dtype = network.conv_in.weight.dtype
        folded = fold(network_pixels(images), UNetShape().patch)
        draws = draws_for(role, self._noise, self._seed, (folded.shape[1], *folded.shape[2:]))
        noise = to_device(draws.noise.numpy(), self._device)
        found: dict[Target, QKV] = {}
        for timestep, group in groupby(sorted(targets, key=_by_timestep), key=_by_timestep):
            wanted = list(group)
            noisy = add_noise(folded, noise, float(alpha_bars()[timestep])).to(dtype)
            steps = torch.full((len(noisy),), timestep, device=self._device)
            captured = capture_qkv(
                run=lambda noisy=noisy, steps=steps: network(noisy, steps),  # type: ignore[misc]
                layers={target.layer: self._layers[target.layer] for target in wanted},
                project=_project,
            )
            found |= {target: QKV(*(t.unsqueeze(1) for t in captured[target.layer])) for target in wanted}
        return found

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.backbones.AttentionExtractor`."""
        return {
            "name": "mini",
            "weights": self._digest,
            "image_size": self.image_size,
            "resize": "square-lanczos",
            "cells": CELLS_VERSION,
            "branches": "cond",
            "noise": self._noise,
            "seed": self._seed,
            "dtype": "float32" if self._network is None else dtype_name(self._network.conv_in.weight.dtype),
        }


def _described(target: Target, own: QKV | None, lab: Tensor, lbp: Tensor) -> QKV:
    """Put the cells' descriptors in the place of the values, and of queries and keys where there is no layer."""
    if target.values is None:
        assert own is not None
        return own
    if own is None:
        return project_cells(lab, lbp, target.values)
    return QKV(own.q, own.k, weighted(lab, lbp, target.values)[:, None, None])


def _by_timestep(target: Target) -> int:
    return target.timestep


def _project(attention: nn.Module, features: Tensor) -> Projections:
    assert isinstance(attention, SelfAttention)
    return attention.project(features)
