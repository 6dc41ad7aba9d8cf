"""The paper's ablation without AAS: all tokens of a layer as one vector, compared by cosine (table 3)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from retrieval.metrics.aas import model_settings, target_of
from retrieval.metrics.base import MetricSettings
from retrieval.metrics.features import FlatMetric
from retrieval.metrics.registry import MetricDescription
from retrieval.models.diffusion.sd15 import StableDiffusion15
from retrieval.models.modes import Target
from retrieval.models.protocols import Pixels
from retrieval.models.registry import EXTRACTORS, load_extractor
from retrieval.models.vit.attention import VisionTransformer
from retrieval.scoring.outputs import attention_output
from retrieval.types import Role


def load_clip(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "ViTFeatures":
    """Load the ablation on CLIP: the output of a whole encoder layer, all tokens as one vector."""
    return ViTFeatures(*_vit(description, settings, device, offline), settings, _layer_output)


def load_dinov2(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "ViTFeatures":
    """Load the ablation on DINOv2: the attention's output before its projection, all tokens as one vector."""
    return ViTFeatures(*_vit(description, settings, device, offline), settings, _own_output)


def load_diffusion(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "DiffusionFeatures":
    """Load the ablation on Stable Diffusion 1.5."""
    model = EXTRACTORS["sd15"]
    extractor = load_extractor(model_settings("sd15", settings), device, offline)
    assert isinstance(extractor, StableDiffusion15)
    shared = (settings.noise or model.noise) == "shared"
    return DiffusionFeatures(extractor, target_of(description, settings), settings, shared)


class DiffusionFeatures(FlatMetric):
    """The output of a layer after its projection, min-max normalised for each image."""

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
        output = attention_output(tensors.q, tensors.k, tensors.v)  # [images, branches, heads, tokens, head_dim]
        projection: nn.Module = self._extractor.attention(self._target.layer).to_out[0]
        joined = output.transpose(2, 3).flatten(3).to(tensors.q.dtype)
        flat: Tensor = projection(joined).float().flatten(1)
        low, high = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)
        return (flat - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.base.Metric`."""
        return {"feature": "attn1 output, min-max", **self._extractor.fingerprint(), **self._target.to_json()}


Read = Callable[[VisionTransformer, Target, Pixels], Tensor]
"""From pixels ``[images, S, S, 3]`` to ``[images, ...]`` of one layer."""


class ViTFeatures(FlatMetric):
    """All tokens of one layer of a vision transformer."""

    one_role = True

    def __init__(self, extractor: VisionTransformer, target: Target, settings: MetricSettings, read: Read) -> None:
        """Take a loaded network, a layer, and the function that reads it."""
        super().__init__(settings.similarity)
        self._extractor, self._target, self._read = extractor, target, read
        extractor.layer(target.layer)  # raises for an unknown layer

    @torch.inference_mode()
    def vectors(self, images: Sequence[Image.Image], role: Role) -> Tensor:
        """Return ``[images, tokens * width]``."""
        pixels = np.stack([self._extractor.prepare(image) for image in images])
        return self._read(self._extractor, self._target, pixels).flatten(1)

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.base.Metric`."""
        feature = self._read.__name__.strip("_")
        return {"feature": feature, **self._extractor.fingerprint(), **self._target.to_json()}


def _own_output(extractor: VisionTransformer, target: Target, pixels: Pixels) -> Tensor:
    tensors = extractor.extract(pixels, [target], "gallery")[target]
    return attention_output(tensors.q, tensors.k, tensors.v)


def _layer_output(extractor: VisionTransformer, target: Target, pixels: Pixels) -> Tensor:
    found: list[Tensor] = []

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handle = extractor.layer(target.layer).register_forward_hook(hook)
    try:
        extractor.forward(pixels)
    finally:
        handle.remove()
    return found[0]


def _vit(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> tuple[VisionTransformer, Target]:
    extractor = load_extractor(model_settings(description.extractor, settings), device, offline)
    assert isinstance(extractor, VisionTransformer)
    return extractor, target_of(description, settings)
