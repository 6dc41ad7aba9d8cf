"""Metrics on the models that can be indexed: DiffSim-S on SD 1.5 and on mini, and the ablation without AAS."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from retrieval.aas import read
from retrieval.backbones import EXTRACTORS, AttentionExtractor, load_extractor
from retrieval.backbones.sd15 import StableDiffusion15
from retrieval.metrics import Features, MetricDescription, MetricSettings
from retrieval.metrics.attention import AttentionMetric, attend, features_of
from retrieval.metrics.vectors import FlatMetric
from retrieval.modes import MINI_MODES, Target, at_step
from retrieval.settings import ModelSettings
from retrieval.vocabulary import Role


def load_sd15(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "ExtractorMetric":
    """Load DiffSim-S on Stable Diffusion 1.5; the published settings are its defaults, ``parity`` changes nothing."""
    return _load("sd15", description, settings, device, offline)


def load_mini(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "ExtractorMetric":
    """Load AAS on the embedded model, by default as the description's mode reads it."""
    return _load("mini", description, settings, device, offline)


def load_feats(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "DiffusionFeatures":
    """Load the paper's ablation on Stable Diffusion 1.5."""
    extractor = _extractor("sd15", description, settings, device, offline)
    assert isinstance(extractor, StableDiffusion15)
    return DiffusionFeatures(extractor, target_of(description, settings), settings, _noise("sd15", settings))


def target_of(description: MetricDescription, settings: MetricSettings) -> Target:
    """Return the layer and timestep asked for, read as they are, or the metric's own target."""
    layer, step = settings.layer or description.layer, settings.denoising_step or description.denoising_step
    if description.mode and layer == description.layer:
        return MINI_MODES[description.mode].target
    return at_step(layer, step)


class ExtractorMetric(AttentionMetric):
    """DiffSim-S over an AttentionExtractor, at one layer and timestep."""

    def __init__(
        self,
        extractor: AttentionExtractor,
        target: Target,
        settings: MetricSettings,
        device: torch.device,
        shared_noise: bool,
        batch_size: int,
    ) -> None:
        """Take a loaded extractor; with shared noise an image is the same on both sides of a pair."""
        super().__init__(settings, device, partial(read, readout=target.readout))
        self._extractor, self._target = extractor, target
        self.one_role = shared_noise
        self.batch_size = batch_size

    def at(self, target: Target) -> "ExtractorMetric":
        """Return the metric at another layer or timestep, on the same loaded network."""
        other = copy(self)
        other._target = target
        other._how = replace(self._how, project=partial(read, readout=target.readout))
        return other

    def encode(self, images: Sequence[Image.Image], role: Role) -> Features:
        """See :class:`retrieval.metrics.Metric`."""
        return self.encode_many(images, role, [self._target])[self._target]

    def encode_many(
        self, images: Sequence[Image.Image], role: Role, targets: Sequence[Target]
    ) -> dict[Target, Features]:
        """Return the features at several layers and timesteps; a timestep costs one pass, whatever its layers."""
        pixels = np.stack([self._extractor.prepare(image) for image in images])
        found = self._extractor.extract(pixels, targets, role)
        return {
            target: features_of(tensors, partial(read, readout=target.readout)) for target, tensors in found.items()
        }

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.Metric`."""
        return _fingerprint(self._extractor, self._target)


class DiffusionFeatures(FlatMetric):
    """The layer's output after its projection, min-max normalised an image, compared by cosine without AAS."""

    def __init__(
        self, extractor: StableDiffusion15, target: Target, settings: MetricSettings, shared_noise: bool
    ) -> None:
        """Take a loaded SD 1.5."""
        super().__init__(settings.similarity)
        self._extractor, self._target = extractor, target
        self.one_role = shared_noise
        self.batch_size = 1

    @torch.inference_mode()
    def vectors(self, images: Sequence[Image.Image], role: Role) -> Tensor:
        """Return ``[images, branches * tokens * width]``."""
        pixels = np.stack([self._extractor.prepare(image) for image in images])
        tensors = self._extractor.extract(pixels, [self._target], role)[self._target]
        output = attend(tensors.q, tensors.k, tensors.v)  # [images, branches, heads, tokens, head_dim]
        projection: nn.Module = self._extractor.attention(self._target.layer).to_out[0]
        joined = output.transpose(2, 3).flatten(3).to(tensors.q.dtype)
        flat: Tensor = projection(joined).float().flatten(1)
        low, high = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)
        return (flat - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.Metric`."""
        return {"feature": "attn1 output, min-max", **_fingerprint(self._extractor, self._target)}


def _load(
    model: str, description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> ExtractorMetric:
    extractor = _extractor(model, description, settings, device, offline)
    on_cpu, elsewhere = EXTRACTORS[model].batch_sizes
    return ExtractorMetric(
        extractor,
        target_of(description, settings),
        settings,
        device,
        shared_noise=_noise(model, settings),
        batch_size=on_cpu if device.type == "cpu" else elsewhere,
    )


def _extractor(
    model: str, description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> AttentionExtractor:
    return load_extractor(model_settings(model, description, settings), device, offline)


def model_settings(model: str, description: MetricDescription, settings: MetricSettings) -> ModelSettings:
    """Return the model's own settings for a metric's."""
    return ModelSettings(
        model=model,
        weights=settings.weights,
        image_size=settings.image_size or description.image_size or None,
        branches=settings.branches,
        noise=settings.noise,
        seed=settings.seed,
        prompt=settings.prompt,
        dtype=settings.dtype,
    )


def _noise(model: str, settings: MetricSettings) -> bool:
    return (settings.noise or EXTRACTORS[model].noise) == "shared"


def _fingerprint(extractor: AttentionExtractor, target: Target) -> dict[str, Any]:
    return {**extractor.fingerprint(), **target.to_json()}
