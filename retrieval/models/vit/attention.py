"""AAS on vision transformers: images to the self-attention Q/K/V of CLIP and DINOv2, the class token included.

Layers are named by their number, from "0", or "last". Preprocessing and weights are those of the pooled embedders.
There is no noise, so both roles give the same tensors and a target's timestep is 0.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from retrieval.errors import UsageError
from retrieval.models.capture import LinearExtractor, capture_inputs
from retrieval.models.modes import LAST, Target
from retrieval.models.projection import LinearProjection
from retrieval.models.protocols import Pixels
from retrieval.models.registry import ExtractorDescription, load_embedder
from retrieval.models.vit.pooled import ViTEmbedder
from retrieval.settings import ModelSettings
from retrieval.types import Parity, Role

Family = Literal["clip", "dinov2"]


def load(
    description: ExtractorDescription, settings: ModelSettings, device: torch.device, offline: bool
) -> "VisionTransformer":
    """Load CLIP or DINOv2, float32.

    Raises:
        UsageError: an image size other than the weights' own.
        ModelError: weights are missing or incomplete.
    """
    family: Family = "clip" if description.name.startswith("clip") else "dinov2"
    folder = None if settings.weights is None else Path(settings.weights)
    embedder = load_embedder(family, folder, device, offline)
    assert isinstance(embedder, ViTEmbedder)
    return around(embedder, family, settings)


def around(embedder: ViTEmbedder, family: Family, settings: ModelSettings) -> "VisionTransformer":
    """Return the extractor around a loaded embedder.

    Raises:
        UsageError: an image size other than the weights' own.
    """
    own = embedder.preprocessing.crop
    if settings.image_size not in (None, own):
        raise UsageError(f"image size {settings.image_size} does not suit these weights of {family}: they take {own}")
    kind = ClipTransformer if family == "clip" else VisionTransformer
    return kind(embedder, family, settings.parity)


class VisionTransformer(LinearExtractor):
    """An AttentionExtractor with one branch; DINOv2's outputs are compared as they are, as published."""

    def __init__(self, embedder: ViTEmbedder, family: Family, parity: Parity = "sound") -> None:
        """Take a loaded embedder; ``parity`` changes CLIP only."""
        self._embedder, self._family, self._parity = embedder, family, parity
        self._heads: int = embedder.model.config.num_attention_heads
        blocks = embedder.model.vision_model.encoder.layers if family == "clip" else embedder.model.encoder.layer
        numbered = {str(number): block for number, block in enumerate(blocks)}
        self._layers: Mapping[str, Any] = {**numbered, LAST: blocks[len(blocks) - 1]}

    def layer(self, name: str) -> Any:
        """Return the encoder layer called ``name``; an unknown one is a UsageError."""
        if name not in self._layers:
            raise UsageError(f"unknown layer '{name}' of {self._family}-aas; known: {', '.join(self._layers)}")
        return self._layers[name]

    def prepare(self, image: Image.Image) -> Pixels:
        """Return ``[crop, crop, 3]``, as the embedder takes it."""
        return self._embedder.prepare(image)

    @torch.inference_mode()
    def forward(self, pixels: Pixels) -> Any:
        """Run the whole network and return its own output."""
        return self._embedder.forward(pixels)

    @torch.inference_mode()
    def hidden(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, Tensor]:
        """See :class:`retrieval.models.protocols.HiddenExtractor`; the network stops at the last layer asked for."""
        modules = {self.layer(target.layer): target.layer for target in targets}
        inputs = capture_inputs(
            run=partial(self._embedder.forward, pixels), layers={name: module for module, name in modules.items()}
        )
        found = {module: self._normalised(module, inputs[name]).unsqueeze(1) for module, name in modules.items()}
        return {target: found[self.layer(target.layer)] for target in targets}

    def _normalised(self, module: Any, hidden: Tensor) -> Tensor:
        if self._family == "clip" and self._parity == "published":
            return hidden
        norm: nn.Module = module.layer_norm1 if self._family == "clip" else module.norm1
        normalised: Tensor = norm(hidden)
        return normalised

    @torch.inference_mode()
    def projection(self, target: Target) -> LinearProjection:
        """See :class:`retrieval.models.protocols.HiddenExtractor`."""
        return LinearProjection.of(*_projections(self.layer(target.layer), self._family), self._heads)

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        """See :class:`retrieval.models.protocols.HiddenExtractor`."""
        side = self._embedder.preprocessing.crop // self._embedder.model.config.patch_size
        width = _projections(self.layer(target.layer), self._family)[0].in_features
        return 1, side**2 + 1, width

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`."""
        settings = {**self._embedder.fingerprint(), "name": f"{self._family}-aas", "dtype": "float32"}
        return {**settings, "parity": self._parity} if self._family == "clip" else settings


class ClipTransformer(VisionTransformer):
    """CLIP as an extractor: outputs pass through the layer's output projection before they are compared.

    ``parity="published"`` reads the layer's input before its first layer norm, as the published code does.
    """

    def project_output(self, output: Tensor, layer: str) -> Tensor:
        """See :class:`retrieval.models.protocols.ProjectedOutput`; returns ``[items, branches, tokens, width]``."""
        projection: nn.Module = self.layer(layer).self_attn.out_proj
        projected: Tensor = projection(output.transpose(2, 3).flatten(3))
        return projected


def _projections(module: Any, family: Family) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    """Return the query, key and value projections of an encoder layer."""
    attention = module.self_attn if family == "clip" else module.attention
    inner = getattr(attention, "attention", attention)  # transformers 4 kept DINOv2's projections one level deeper
    names = ("query", "key", "value") if hasattr(inner, "query") else ("q_proj", "k_proj", "v_proj")
    q, k, v = (getattr(inner, name) for name in names)
    return q, k, v
