"""AAS over any model that can be indexed: the metric and the index's search are one computation."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from retrieval.aas import higher_is_closer
from retrieval.backbones import EXTRACTORS, AttentionExtractor, Prompted, load_extractor, readout_of
from retrieval.metrics import Features, Metric, MetricDescription, MetricSettings
from retrieval.metrics.attention import Comparison, attention_features, score_attention
from retrieval.modes import LAST_STEP, Target, at_step
from retrieval.settings import ModelSettings
from retrieval.vocabulary import Role


def load(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "ExtractorMetric":
    """Load AAS over the description's model, by default as its mode reads it.

    What ``parity`` changes, the docstring of the model's own module says.
    """
    model = EXTRACTORS[description.extractor]
    on_cpu, elsewhere = model.batch_sizes
    return ExtractorMetric(
        load_extractor(model_settings(description.extractor, settings), device, offline),
        target_of(description, settings),
        settings,
        device,
        shared_noise=(settings.noise or model.noise) == "shared",
        batch_size=on_cpu if device.type == "cpu" else elsewhere,
    )


def target_of(description: MetricDescription, settings: MetricSettings) -> Target:
    """Return the layer and timestep asked for, read as they are, or the target of the metric's mode."""
    own = EXTRACTORS[description.extractor].modes[description.mode].target
    layer, step = settings.layer or own.layer, settings.denoising_step or own.denoising_step
    if layer != own.layer:
        return at_step(layer, step)
    return replace(own, timestep=LAST_STEP - step) if own.timestep else own  # 0: the layer knows no noise


def model_settings(model: str, settings: MetricSettings) -> ModelSettings:
    """Return the model's own settings for a metric's."""
    return ModelSettings(
        model=model,
        weights=settings.weights,
        image_size=settings.image_size,
        branches=settings.branches,
        noise=settings.noise,
        seed=settings.seed,
        prompt=settings.prompt,
        dtype=settings.dtype,
        parity=settings.parity,
    )


class ExtractorMetric(Metric):
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
        self._extractor, self._target, self._device = extractor, target, device
        self._how = Comparison(settings.similarity, settings.directions, readout_of(extractor, target))
        self.higher_is_closer = higher_is_closer(settings.similarity)
        self.prompt = settings.prompt
        self.one_role = shared_noise
        self.batch_size = batch_size

    def at(self, target: Target) -> "ExtractorMetric":
        """Return the metric at another layer or timestep, on the same loaded network."""
        other = copy(self)
        other._target = target
        other._how = replace(self._how, readout=readout_of(self._extractor, target))
        return other

    def prompted(self, prompts: Sequence[str]) -> Mapping[str, Metric]:
        """See :class:`retrieval.metrics.Metric`; the network is shared."""
        if not isinstance(self._extractor, Prompted):
            return super().prompted(prompts)
        found: dict[str, Metric] = {}
        for prompt, extractor in self._extractor.with_prompts(prompts).items():
            other = copy(self)
            other._extractor, other.prompt = extractor, prompt
            found[prompt] = other
        return found

    def comparison(self) -> dict[str, Any]:
        """Return how features are compared, as JSON values; the readout is part of the fingerprint."""
        return {"similarity": self._how.similarity, "directions": self._how.directions}

    def encode(self, images: Sequence[Image.Image], role: Role) -> Features:
        """See :class:`retrieval.metrics.Metric`."""
        return self.encode_many(images, role, [self._target])[self._target]

    def encode_many(
        self, images: Sequence[Image.Image], role: Role, targets: Sequence[Target]
    ) -> Mapping[Target, Features]:
        """Return the features at several layers and timesteps; a timestep costs one pass, whatever its layers."""
        pixels = np.stack([self._extractor.prepare(image) for image in images])
        found = self._extractor.extract(pixels, targets, role)
        return {
            target: attention_features(tensors, readout_of(self._extractor, target))
            for target, tensors in found.items()
        }

    def score(self, query: Features, gallery: Features) -> NDArray[np.float32]:
        """See :class:`retrieval.metrics.Metric`."""
        return score_attention(query, gallery, self._how, self._device)

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.Metric`."""
        return {**self._extractor.fingerprint(), **self._target.to_json()}
