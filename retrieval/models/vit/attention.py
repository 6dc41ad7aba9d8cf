"""AAS on vision transformers: images to the self-attention Q/K/V of one layer, class and register tokens included.

Layers are named by their number, from "0", or "last". Preprocessing and weights are those of the pooled embedders.
There is no noise, so both roles give the same tensors and a target's timestep is 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from retrieval.errors import ModelError, UsageError
from retrieval.images.pixel_rules import PatchRules, PixelRules
from retrieval.images.preprocessing import Preprocessing
from retrieval.models.capture import LinearExtractor, capture_inputs
from retrieval.models.descriptions import ExtractorDescription
from retrieval.models.modes import LAST, Target
from retrieval.models.projection import LinearProjection
from retrieval.models.protocols import Pixels
from retrieval.models.references import parse_reference
from retrieval.models.registry import load_embedder
from retrieval.models.token_grid import TokenGrid
from retrieval.models.vit.any import load_found, model_type
from retrieval.models.vit.architectures import ARCHITECTURES, AttentionPlace, find_architecture
from retrieval.models.vit.pooled import ViTEmbedder
from retrieval.models.weights.finding import find_weights
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
    embedder = load_embedder(family, _folder(settings), device, offline)
    assert isinstance(embedder, ViTEmbedder)
    return around(embedder, family, settings)


def load_any(
    description: ExtractorDescription, settings: ModelSettings, device: torch.device, offline: bool
) -> "VisionTransformer":
    """Load the vision transformer of any repository, float32.

    Raises:
        UsageError: an image size other than the repository's own, or an unknown layer.
        ModelError: AAS can't read this model, or weights are missing or incomplete.
    """
    reference = parse_reference(description.name)
    assert reference is not None
    weights = find_weights(description, _folder(settings) or reference.folder, offline)
    kind = model_type(weights.root)
    architecture = find_architecture(kind, weights.root)
    if architecture.attention is None:
        able = ", ".join(name for name, each in ARCHITECTURES.items() if each.attention)
        raise ModelError(f"AAS can't read a {kind} model: {architecture.without}; it can read: {able}")
    embedder = load_found(description, architecture, weights, device)
    extractor = _extractor(embedder, f"hf-aas:{kind}", architecture.attention, settings)
    extractor.layer(reference.layer)  # raises for an unknown layer
    return extractor


def around(embedder: ViTEmbedder, family: Family, settings: ModelSettings) -> "VisionTransformer":
    """Return the extractor around a loaded embedder.

    Raises:
        UsageError: an image size other than the weights' own.
    """
    place = ARCHITECTURES[family].attention
    assert place is not None
    return _extractor(embedder, f"{family}-aas", place, settings)


def _extractor(embedder: ViTEmbedder, name: str, place: AttentionPlace, settings: ModelSettings) -> "VisionTransformer":
    own = _size(embedder)
    if settings.image_size not in (None, *own):
        raise UsageError(f"image size {settings.image_size} does not suit these weights of {name}: they take {own[0]}")
    kind = ClipTransformer if place.projected else VisionTransformer
    return kind(embedder, name, place, settings.parity)


def _size(embedder: ViTEmbedder) -> tuple[int, int]:
    return _pixel_rules(embedder).output


def _pixel_rules(embedder: ViTEmbedder) -> Preprocessing | PixelRules:
    rules = embedder.preprocessing
    assert not isinstance(rules, PatchRules)  # no model of patches has an AttentionPlace
    return rules


def _folder(settings: ModelSettings) -> Path | None:
    return None if settings.weights is None else Path(settings.weights)


class VisionTransformer(LinearExtractor):
    """An AttentionExtractor with one branch; outputs are compared as they are, as published for DINOv2."""

    def __init__(self, embedder: ViTEmbedder, name: str, place: AttentionPlace, parity: Parity = "sound") -> None:
        """Take a loaded embedder, and where its attention lies; ``parity`` changes CLIP only."""
        self._embedder, self._name, self._place, self._parity = embedder, name, place, parity
        self._heads: int = embedder.model.config.num_attention_heads
        blocks = _blocks(embedder.model, place)
        numbered = {str(number): block for number, block in enumerate(blocks)}
        self._layers: Mapping[str, Any] = {**numbered, LAST: blocks[len(blocks) - 1]}

    def layer(self, name: str) -> Any:
        """Return the encoder layer called ``name``; an unknown one is a UsageError."""
        if name not in self._layers:
            raise UsageError(f"unknown layer '{name}' of {self._name}; known: {', '.join(self._layers)}")
        return self._layers[name]

    def prepare(self, image: Image.Image) -> Pixels:
        """Return the pixels ``[height, width, 3]``, as the embedder takes them."""
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
        norm: nn.Module = getattr(module, self._place.norm)
        normalised: Tensor = norm(hidden)
        return normalised

    @torch.inference_mode()
    def projection(self, target: Target) -> LinearProjection:
        """See :class:`retrieval.models.protocols.HiddenExtractor`."""
        inner = _inner(self.layer(target.layer), self._place)
        if hasattr(inner, "qkv"):
            projection = LinearProjection.of_fused(inner.qkv, self._heads)
        else:
            names = ("query", "key", "value") if hasattr(inner, "query") else ("q_proj", "k_proj", "v_proj")
            q, k, v = (getattr(inner, name) for name in names)
            projection = LinearProjection.of(q, k, v, self._heads)
        return replace(projection, rotation=self._rotation()) if self._place.rotary else projection

    def _rotation(self) -> tuple[Tensor, Tensor]:
        model = self._embedder.model
        pixels = torch.zeros(1, 3, *_size(self._embedder), device=model.device)
        cos, sin = model.rope_embeddings(pixels)
        return cos, sin

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        """See :class:`retrieval.models.protocols.HiddenExtractor`."""
        return 1, self._grid().tokens, self._embedder.model.config.hidden_size

    def token_grid(self, width: int, height: int) -> TokenGrid:
        """See :class:`retrieval.models.token_grid.PlacedTokens`."""
        return replace(self._grid(), region=_pixel_rules(self._embedder).region(width, height))

    def _grid(self) -> TokenGrid:
        config = self._embedder.model.config
        rows, columns = (side // config.patch_size for side in _size(self._embedder))
        return TokenGrid(rows, columns, before=self._place.prefix(config))

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`."""
        return {**self._embedder.fingerprint(), "name": self._name, "dtype": "float32"}


class ClipTransformer(VisionTransformer):
    """CLIP as an extractor: outputs pass through the layer's output projection before they are compared.

    ``parity="published"`` reads the layer's input before its first layer norm, as the published code does.
    """

    def _normalised(self, module: Any, hidden: Tensor) -> Tensor:
        return hidden if self._parity == "published" else super()._normalised(module, hidden)

    def project_output(self, output: Tensor, layer: str) -> Tensor:
        """See :class:`retrieval.models.protocols.ProjectedOutput`; returns ``[items, branches, tokens, width]``."""
        projection: nn.Module = self.layer(layer).self_attn.out_proj
        projected: Tensor = projection(output.transpose(2, 3).flatten(3))
        return projected

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`."""
        return {**super().fingerprint(), "parity": self._parity}


def _blocks(model: Any, place: AttentionPlace) -> Any:
    """Return the list of encoder layers, wherever this version of transformers has it."""
    for path in place.blocks:
        try:
            return model.get_submodule(path)
        except AttributeError:
            continue
    raise ModelError(f"this version of transformers has the layers of {type(model).__name__} elsewhere")


def _inner(module: Any, place: AttentionPlace) -> Any:
    """Return the module that holds the projections; transformers 4 kept some of them one level deeper."""
    attention = getattr(module, place.module)
    return getattr(attention, "attention", attention)
