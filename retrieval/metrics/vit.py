"""AAS, and plain features, on the self-attention of CLIP and DINOv2 (all tokens, the class token included).

Layers are named by their number, from "0". Pixels, normalisation and weights are those of the pooled embedders.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from retrieval.backbones import load_embedder
from retrieval.backbones.capture import capture_qkv
from retrieval.backbones.vit import ViTEmbedder
from retrieval.errors import UsageError
from retrieval.metrics import Features, MetricDescription, MetricSettings, Parity
from retrieval.metrics.attention import AttentionMetric, Projection, attend, attention_features, heads_of, one_branch
from retrieval.metrics.vectors import FlatMetric
from retrieval.vocabulary import Role

Family = Literal["clip", "dinov2"]


def load_clip_aas(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "ViTAttentionMetric":
    """Load CLIP AAS: true Q/K/V, and the output projection before the cosine.

    ``parity="published"`` projects the layer's input before its first layer norm, as the published code does.
    """
    layers = _load("clip", description, settings, device, offline)
    return ViTAttentionMetric(layers, settings, device)


def load_dinov2_aas(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "ViTAttentionMetric":
    """Load DINOv2 AAS: true Q/K/V, no projection; ``parity`` changes nothing."""
    return ViTAttentionMetric(_load("dinov2", description, settings, device, offline), settings, device)


def load_clip_feats(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "ViTFeatures":
    """Load the ablation on CLIP: the output of a whole encoder layer, all tokens as one vector."""
    return ViTFeatures(_load("clip", description, settings, device, offline), settings, _layer_output)


def load_dinov2_feats(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "ViTFeatures":
    """Load the ablation on DINOv2: the attention's output before its projection, all tokens as one vector."""
    return ViTFeatures(_load("dinov2", description, settings, device, offline), settings, _own_output)


@dataclass(frozen=True)
class ViTLayer:
    """One encoder layer of a loaded vision transformer, and how it is read."""

    family: Family
    embedder: ViTEmbedder
    module: Any
    heads: int
    number: int
    parity: Parity

    def qkv(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k, v ``[images, 1, heads, tokens, head_dim]``; the network stops in front of the layer."""
        pixels = np.stack([self.embedder.prepare(image) for image in images])
        captured = capture_qkv(
            run=lambda: self.embedder.forward(pixels), layers={"layer": self.module}, project=self._project
        )
        q, k, v = one_branch(captured["layer"])
        return q, k, v

    def _project(self, module: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        norm = module.layer_norm1 if self.family == "clip" else module.norm1
        if self.family == "dinov2" or self.parity == "sound":
            hidden = norm(hidden)
        q, k, v = (heads_of(to(hidden), self.heads) for to in projections(module, self.family))
        return q, k, v

    def output_projection(self) -> Projection | None:
        """Return CLIP's ``out_proj`` over joined heads; the published DINOv2 AAS has none."""
        if self.family == "dinov2":
            return None
        out: nn.Module = self.module.self_attn.out_proj

        def project(output: Tensor) -> Tensor:
            projected: Tensor = out(output.transpose(2, 3).flatten(3))
            return projected

        return project

    def fingerprint(self) -> dict[str, Any]:
        """Return all that changes a tensor, as JSON values."""
        return {**self.embedder.fingerprint(), "layer": self.number, "parity": self.parity}


def projections(module: Any, family: Family) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return the query, key and value projections of an encoder layer."""
    attention = module.self_attn if family == "clip" else module.attention
    inner = getattr(attention, "attention", attention)  # transformers 4 kept DINOv2's projections one level deeper
    names = ("query", "key", "value") if hasattr(inner, "query") else ("q_proj", "k_proj", "v_proj")
    q, k, v = (getattr(inner, name) for name in names)
    return q, k, v


class ViTAttentionMetric(AttentionMetric):
    """AAS on one layer of CLIP or DINOv2."""

    one_role = True

    def __init__(self, layer: ViTLayer, settings: MetricSettings, device: torch.device) -> None:
        """Take a loaded layer."""
        super().__init__(settings, device, layer.output_projection())
        self._layer = layer

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image], role: Role) -> Features:
        """See :class:`retrieval.metrics.Metric`."""
        return attention_features(*self._layer.qkv(images), self._how.project)

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.Metric`."""
        return self._layer.fingerprint()


class ViTFeatures(FlatMetric):
    """All tokens of one layer as one vector: the ablation without AAS."""

    one_role = True

    def __init__(
        self, layer: ViTLayer, settings: MetricSettings, read: Callable[[ViTLayer, Sequence[Image.Image]], Tensor]
    ) -> None:
        """Take a loaded layer and what is read of it."""
        super().__init__(settings.similarity)
        self._layer, self._read = layer, read

    @torch.inference_mode()
    def vectors(self, images: Sequence[Image.Image], role: Role) -> Tensor:
        """Return ``[images, tokens * width]``."""
        return self._read(self._layer, images).flatten(1)

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.Metric`."""
        return {"feature": self._read.__name__.strip("_"), **self._layer.fingerprint()}


def _own_output(layer: ViTLayer, images: Sequence[Image.Image]) -> Tensor:
    q, k, v = layer.qkv(images)
    return attend(q, k, v)


def _layer_output(layer: ViTLayer, images: Sequence[Image.Image]) -> Tensor:
    found: list[Tensor] = []

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handle = layer.module.register_forward_hook(hook)
    try:
        layer.embedder.forward(np.stack([layer.embedder.prepare(image) for image in images]))
    finally:
        handle.remove()
    return found[0]


def _load(
    family: Family, description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> ViTLayer:
    folder = None if settings.weights is None else Path(settings.weights)
    embedder = load_embedder(family, folder, device, offline)
    assert isinstance(embedder, ViTEmbedder)
    layers = _layers(embedder.model, family)
    name = settings.layer or str(min(int(description.layer), len(layers) - 1))
    if name not in layers:
        raise UsageError(f"unknown layer '{name}' of {description.name}; known: {', '.join(layers)}")
    return ViTLayer(
        family=family,
        embedder=embedder,
        module=layers[name],
        heads=embedder.model.config.num_attention_heads,
        number=int(name),
        parity=settings.parity,
    )


def _layers(model: Any, family: Family) -> Mapping[str, Any]:
    modules = model.vision_model.encoder.layers if family == "clip" else model.encoder.layer
    return {str(number): module for number, module in enumerate(modules)}
