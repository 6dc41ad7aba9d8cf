"""The embedded model as an AttentionExtractor.

A target's values are the descriptors of an image's 6 x 6 cells. Its queries and keys are those of a layer of the small
denoising UNet, or, for the layer ``cells``, the descriptors themselves; the AAS is the same formula for all of them.
"""

from collections.abc import Sequence
from importlib.resources import as_file, files
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
from retrieval.mini.cells import CELLS_VERSION, cell_histograms
from retrieval.mini.unet import MiniUNet, SelfAttention, UNetShape, fold, network_pixels
from retrieval.mini.values import GRID, MATCH_PATTERNS, match_features, weighted
from retrieval.modes import CELLS, Target
from retrieval.noise import add_noise, alpha_bars, draws_for
from retrieval.settings import ModelSettings
from retrieval.vocabulary import NoiseRule, Role

WEIGHTS = "unet.safetensors"
STEP = 24  # pixels: image sizes are whole multiples, so that cells are


def load(
    description: ExtractorDescription, settings: ModelSettings, device: torch.device, offline: bool
) -> "MiniExtractor":
    """Load the shipped weights, or those of a local folder that holds ``unet.safetensors``."""
    from safetensors.torch import load_file

    size = settings.image_size or description.image_size
    if size < 2 * STEP or size % STEP:
        raise UsageError(f"image size {size} does not suit mini: a multiple of {STEP}, at least {2 * STEP}, is needed")
    network = MiniUNet(UNetShape())
    with as_file(files("retrieval.mini")) as packaged:
        folder = packaged if settings.weights is None else Path(settings.weights)
        require(folder, (WEIGHTS,), "mini model")
        try:
            network.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(f"{folder / WEIGHTS} can't be loaded: {str(error).strip().splitlines()[0]}") from error
        digest = weights_digest(folder)
    network.eval().requires_grad_(False).to(device, choose_dtype(settings.dtype, device))
    return MiniExtractor(network, digest, size, settings.seed, settings.noise or description.noise)


class MiniExtractor:
    """An AttentionExtractor with one branch."""

    def __init__(self, network: MiniUNet, digest: str, image_size: int, seed: int, noise: NoiseRule) -> None:
        self._network = network
        self._digest = digest
        self.image_size = image_size
        self._seed = seed
        self._noise: NoiseRule = noise
        self._layers = network.attention_layers()
        self._alpha_bars = alpha_bars()

    def prepare(self, image: Image.Image) -> Pixels:
        """Return ``[S, S, 3]``."""
        return resize_square(image, self.image_size)

    @torch.inference_mode()
    def extract(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, QKV]:
        """Run one truncated pass a timestep; see :class:`retrieval.backbones.AttentionExtractor`."""
        unknown = sorted({target.layer for target in targets} - {CELLS, *self._layers})
        if unknown:
            raise UsageError(f"unknown layer '{unknown[0]}' of mini; known: {CELLS}, {', '.join(self._layers)}")
        images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        images = images.to(self._network.conv_in.weight.device)
        own = self._run_network(images, [target for target in targets if target.layer != CELLS], role)
        if not any(target.values for target in targets):
            return own
        lab, lbp = cell_histograms(images, GRID)
        return {target: _described(target, own.get(target), lab, lbp) for target in targets}

    def _run_network(self, images: Tensor, targets: Sequence[Target], role: Role) -> dict[Target, QKV]:
        """Return the network's own tensors of ``targets``."""
        weight = self._network.conv_in.weight
        folded = fold(network_pixels(images), UNetShape().patch)
        draws = draws_for(role, self._noise, self._seed, (folded.shape[1], *folded.shape[2:]))
        found: dict[Target, QKV] = {}
        for timestep, group in groupby(sorted(targets, key=_by_timestep), key=_by_timestep):
            wanted = list(group)
            noisy = add_noise(folded, draws.noise.to(weight.device), float(self._alpha_bars[timestep]))
            steps = torch.full((len(noisy),), timestep, device=weight.device)
            captured = capture_qkv(
                run=lambda noisy=noisy, steps=steps: self._network(noisy.to(weight.dtype), steps),  # type: ignore[misc]
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
            "dtype": dtype_name(self._network.conv_in.weight.dtype),
        }


def _described(target: Target, own: QKV | None, lab: Tensor, lbp: Tensor) -> QKV:
    """Put the cells' descriptors in the place of the values, and of queries and keys where there is no layer."""
    if target.values is None:
        assert own is not None
        return own
    values = weighted(lab, lbp, target.values)[:, None, None]
    if own is not None:
        return QKV(own.q, own.k, values)
    features = match_features(torch.cat([lab, MATCH_PATTERNS * lbp], dim=-1), target.values.sharpness)[:, None, None]
    return QKV(features, features, values)


def _by_timestep(target: Target) -> int:
    return target.timestep


def _project(attention: nn.Module, features: Tensor) -> Projections:
    assert isinstance(attention, SelfAttention)
    return attention.project(features)
