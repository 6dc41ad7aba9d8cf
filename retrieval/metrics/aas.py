"""AAS over any model that an index can use; a search in that index gives the same scores."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retrieval.metrics.base import Features, Metric, MetricSettings
from retrieval.metrics.registry import MetricDescription
from retrieval.models.modes import LAST_STEP, Target, at_step
from retrieval.models.protocols import AttentionExtractor, Prompted, readout_of
from retrieval.models.registry import describe_extractor, load_extractor
from retrieval.scoring.aas import (
    QKV,
    Comparison,
    aligned_attention_scores,
    higher_is_closer,
    own_output,
)
from retrieval.scoring.outputs import AnyReadout
from retrieval.settings import ModelSettings
from retrieval.types import LINEAR, Role

CHUNK_BYTES = 64 << 20  # float32 outputs compared at a time


def load(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "ExtractorMetric":
    """Load AAS over the description's model, by default with its mode's target.

    The docstring of the model's own module says what ``parity`` changes.
    """
    model = describe_extractor(description.extractor)
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
    """Return the layer and timestep that the settings name, or else the target of the metric's mode."""
    own = describe_extractor(description.extractor).modes[description.mode].target
    layer, step = settings.layer or own.layer, settings.denoising_step or own.denoising_step
    if layer != own.layer:
        return at_step(layer, step)
    return replace(own, timestep=LAST_STEP - step) if own.timestep else own  # 0: the model adds no noise


def model_settings(model: str, settings: MetricSettings) -> ModelSettings:
    """Return the settings of a model for those of a metric."""
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
        """Take a loaded extractor; with shared noise an image has the same features on both sides of a pair."""
        self._extractor, self._target, self._settings, self._device = extractor, target, settings, device
        self._how = Comparison(settings.similarity, readout_of(extractor, target), settings.directions)
        self.higher_is_closer = higher_is_closer(settings.similarity)
        self.prompt = settings.prompt
        self.one_role = shared_noise
        self.batch_size = batch_size

    def at(self, target: Target) -> "ExtractorMetric":
        """Return the metric at another layer or timestep, on the same loaded network."""
        return self._with(self._extractor, target, self._settings)

    def _with(self, extractor: AttentionExtractor, target: Target, settings: MetricSettings) -> "ExtractorMetric":
        return ExtractorMetric(extractor, target, settings, self._device, self.one_role, self.batch_size)

    def prompted(self, prompts: Sequence[str]) -> Mapping[str, Metric]:
        """See :class:`retrieval.metrics.base.Metric`; the network is shared."""
        if not isinstance(self._extractor, Prompted):
            return super().prompted(prompts)
        return {
            prompt: self._with(extractor, self._target, replace(self._settings, prompt=prompt))
            for prompt, extractor in self._extractor.with_prompts(prompts).items()
        }

    def comparison(self) -> dict[str, Any]:
        """Return how features are compared, as JSON values; the fingerprint already holds the readout."""
        return {"similarity": self._how.similarity, "directions": self._how.directions}

    def encode(self, images: Sequence[Image.Image], role: Role) -> Features:
        """See :class:`retrieval.metrics.base.Metric`."""
        return self.encode_many(images, role, [self._target])[self._target]

    def encode_many(
        self, images: Sequence[Image.Image], role: Role, targets: Sequence[Target]
    ) -> Mapping[Target, Features]:
        """Return the features at several layers and timesteps; each timestep costs one pass for all its layers."""
        pixels = np.stack([self._extractor.prepare(image) for image in images])
        found = self._extractor.extract(pixels, targets, role)
        return {
            target: attention_features(tensors, readout_of(self._extractor, target))
            for target, tensors in found.items()
        }

    def score(self, query: Features, gallery: Features) -> NDArray[np.float32]:
        """See :class:`retrieval.metrics.base.Metric`."""
        return score_attention(query, gallery, self._how, self._device)

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.base.Metric`."""
        return {**self._extractor.fingerprint(), **self._target.to_json()}


def attention_features(tensors: QKV, readout: AnyReadout = LINEAR) -> Features:
    """Return what a metric keeps of images: q, k, v and the images' own outputs, in the dtype of q, on the CPU."""
    q, k, v = tensors.q, tensors.k, tensors.v
    own = own_output(tensors, Comparison(readout=readout)).to(q.dtype)
    keys = k.clone() if k is q else k  # stored side by side, and a file can't hold one tensor under two names
    return {name: t.cpu() for name, t in (("q", q), ("k", keys), ("v", v), ("own", own))}


@torch.inference_mode()
def score_attention(
    query: Features, gallery: Features, how: Comparison, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """Score one image against many, float32 ``[images]``: ``(AAS(A→B) + AAS(B→A)) / 2``.

    See :mod:`retrieval.scoring.aas`.
    """
    total = len(gallery["q"])
    bytes_an_image = 4 * max(gallery["own"][:1].numel(), gallery["q"][:1].numel(), 1)
    size = max(1, min(64, CHUNK_BYTES // bytes_an_image))
    one = {name: tensor.to(device) for name, tensor in query.items()}
    scores = [
        _score_chunk(one, {name: t[at : at + size].to(device) for name, t in gallery.items()}, how)
        for at in range(0, total, size)
    ]
    return torch.cat(scores).cpu().numpy() if scores else np.empty(0, np.float32)


def _score_chunk(query: Features, chunk: Features, how: Comparison) -> Tensor:
    one, many = (QKV(features["q"], features["k"], features["v"]) for features in (query, chunk))
    return aligned_attention_scores(one, many, how, query["own"].float(), chunk["own"].float())
