"""CLIP and DINOv2 as embedders: transformers' networks with our own preprocessing.

The image processors of transformers change pixels between versions. With our own resize, crop and normalisation a
vector depends on the weights alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retrieval.errors import ModelError
from retrieval.images.pixel_rules import PatchRules, PixelRules
from retrieval.images.preprocessing import (
    CLIP_PREPROCESSING,
    DINOV2_PREPROCESSING,
    Preprocessing,
    read_preprocessing,
)
from retrieval.models.descriptions import Description
from retrieval.models.normalisation import normalise
from retrieval.models.protocols import Pixels
from retrieval.models.weights.finding import find_weights
from retrieval.models.weights.loading import load_pretrained
from retrieval.models.weights.reading import model_errors


@dataclass(frozen=True)
class _Architecture:
    """A class of transformers, the preprocessing of its published weights, and how its output becomes one vector."""

    kind: Any
    preprocessing: Preprocessing
    pool: Callable[[Any], Tensor]


def load_clip(description: Description, folder: Path | None, device: torch.device, offline: bool) -> "ViTEmbedder":
    """Load CLIP's vision tower with its projection; the vector is the image embedding."""
    from transformers import CLIPVisionModelWithProjection

    clip = _Architecture(CLIPVisionModelWithProjection, CLIP_PREPROCESSING, _image_embedding)
    return _load(clip, description, folder, device, offline)


def load_dinov2(description: Description, folder: Path | None, device: torch.device, offline: bool) -> "ViTEmbedder":
    """Load DINOv2; the vector is the class token after the final layer norm."""
    from transformers import Dinov2Model

    dinov2 = _Architecture(Dinov2Model, DINOV2_PREPROCESSING, class_token)
    return _load(dinov2, description, folder, device, offline)


@dataclass(frozen=True, eq=False)
class ViTEmbedder:
    """An Embedder over one vision transformer, float32."""

    name: str
    model: Any
    preprocessing: Preprocessing | PixelRules | PatchRules
    pool: Callable[[Any], Tensor]  # from the network's output to [images, dim]
    identify_weights: Callable[[], str]  # a digest for the fingerprint; called only then, because it reads all files

    def prepare(self, image: Image.Image) -> Pixels:
        """Return the pixels that the model takes, usually ``[crop, crop, 3]``."""
        return self.preprocessing.prepare(image)

    @torch.inference_mode()
    def embed(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return float32 ``[images, dim]``, rows of norm 1."""
        result: NDArray[np.float32] = self.vectors(pixels).cpu().numpy()
        return result

    def vectors(self, pixels: Pixels) -> Tensor:
        """Return the vectors of :meth:`embed` as a tensor on the model's device; gradients flow through it."""
        return torch.nn.functional.normalize(self.pool(self.forward(pixels)).float(), dim=1)

    def forward(self, pixels: Pixels) -> Any:
        """Normalise ``[images, height, width, 3]`` and return the network's own output."""
        return self.model(**self.inputs(pixels))

    def inputs(self, pixels: Pixels) -> dict[str, Tensor]:
        """Return the network's arguments for ``[images, height, width, 3]``, on its device."""
        device = next(self.model.parameters()).device
        return {"pixel_values": normalise(pixels, self.preprocessing, device)}

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.Embedder`."""
        return {"name": self.name, "weights": self.identify_weights(), **self.preprocessing.fingerprint()}


def _load(
    architecture: _Architecture, description: Description, folder: Path | None, device: torch.device, offline: bool
) -> ViTEmbedder:
    weights, kind = find_weights(description, folder, offline), architecture.kind
    config = _config(weights.root, kind)
    model = load_pretrained(kind, weights[""], description.name, dtype=torch.float32, config=config)
    return ViTEmbedder(
        name=description.name,
        model=model.to(device),
        preprocessing=read_preprocessing(weights.root, architecture.preprocessing),
        pool=architecture.pool,
        identify_weights=weights.digest,
    )


def _config(folder: Path, kind: Any) -> Any:
    """Read the model's configuration; a whole CLIP gives its vision tower's, with the shared projection."""
    from transformers import AutoConfig

    with model_errors(f"{folder / 'config.json'} states no model"):
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
    if config.model_type == "clip":
        config.vision_config.projection_dim = config.projection_dim
        config = config.vision_config
    if not isinstance(config, kind.config_class):
        raise ModelError(f"{folder} holds a {config.model_type} model, not one for {kind.__name__}")
    return config


def _image_embedding(output: Any) -> Tensor:
    embedding: Tensor = output.image_embeds
    return embedding


def class_token(output: Any) -> Tensor:
    """Return the final class token ``[images, width]`` of a vision transformer's output."""
    token: Tensor = output.last_hidden_state[:, 0]
    return token
