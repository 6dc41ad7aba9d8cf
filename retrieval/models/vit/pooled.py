"""CLIP and DINOv2 as embedders, through transformers, with preprocessing of our own.

The libraries' image processors change pixels between versions; resize, crop and normalise are ours, so a vector
depends on the weights alone.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retrieval.devices.transfer import upload
from retrieval.errors import ModelError
from retrieval.images.preprocessing import (
    CLIP_PREPROCESSING,
    DINOV2_PREPROCESSING,
    Preprocessing,
    read_preprocessing,
    resize_and_crop,
)
from retrieval.models.protocols import Pixels
from retrieval.models.registry import Description
from retrieval.models.weights import load_pretrained, quiet_loading, require, weights_digest, weights_folder

FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


def load_clip(description: Description, folder: Path | None, device: torch.device, offline: bool) -> "ViTEmbedder":
    """Load CLIP's vision tower with its projection; the vector is the image embedding."""
    from transformers import CLIPVisionModelWithProjection

    return _load(
        description,
        folder,
        device,
        offline,
        CLIPVisionModelWithProjection,
        CLIP_PREPROCESSING,
        _image_embedding,
    )


def load_dinov2(description: Description, folder: Path | None, device: torch.device, offline: bool) -> "ViTEmbedder":
    """Load DINOv2; the vector is the class token after the final layer norm."""
    from transformers import Dinov2Model

    return _load(description, folder, device, offline, Dinov2Model, DINOV2_PREPROCESSING, _class_token)


class ViTEmbedder:
    """An Embedder over one vision transformer, float32."""

    def __init__(
        self,
        *,
        name: str,
        folder: Path | None,
        model: Any,
        preprocessing: Preprocessing,
        pool: Callable[[Any], Tensor],
    ) -> None:
        self._name, self._folder = name, folder
        self._model = model
        self._rules = preprocessing
        self._pool = pool

    def prepare(self, image: Image.Image) -> Pixels:
        """Return ``[crop, crop, 3]``."""
        return resize_and_crop(image, self._rules.shortest, self._rules.crop)

    @property
    def model(self) -> Any:
        """The network, for metrics that read its layers."""
        return self._model

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become its pixels."""
        return self._rules

    def with_model(self, model: Any) -> "ViTEmbedder":
        """Return the same embedder around another form of its network, such as one with an adapter."""
        other = copy(self)
        other._model = model
        return other

    @torch.inference_mode()
    def embed(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return float32 ``[images, dim]``, rows of norm 1."""
        result: NDArray[np.float32] = self.vectors(pixels).cpu().numpy()
        return result

    def vectors(self, pixels: Pixels) -> Tensor:
        """Return what :meth:`embed` does as a tensor on the model's device, through which gradients flow."""
        return torch.nn.functional.normalize(self._pool(self.forward(pixels)).float(), dim=1)

    def forward(self, pixels: Pixels) -> Any:
        """Normalise ``[images, S, S, 3]`` and return the network's own output."""
        device = next(self._model.parameters()).device
        statistics = {"mean": self._rules.mean, "std": self._rules.std}
        arrays = {name: np.array(values, np.float32).reshape(1, 3, 1, 1) for name, values in statistics.items()}
        found = upload({"images": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), **arrays}, device)
        images, mean, std = found["images"].float() / 255.0, found["mean"], found["std"]
        return self._model(pixel_values=(images - mean) / std)

    def _weights(self) -> str:
        assert self._folder is not None
        return weights_digest(self._folder)

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.Embedder`."""
        return {"name": self._name, "weights": self._weights(), **_json(asdict(self._rules))}


def _load(
    description: Description,
    folder: Path | None,
    device: torch.device,
    offline: bool,
    kind: Any,
    default: Preprocessing,
    pool: Callable[[Any], Tensor],
) -> ViTEmbedder:
    found = weights_folder(description, folder, FILES, offline)
    require(found, ("config.json",), f"{description.name} model")
    with quiet_loading():
        model = load_pretrained(kind, found, description.name, dtype=torch.float32, config=_config(found, kind))
    return ViTEmbedder(
        name=description.name,
        folder=found,
        model=model.to(device),
        preprocessing=read_preprocessing(found, default),
        pool=pool,
    )


def _config(folder: Path, kind: Any) -> Any:
    """Read the model's configuration; of a whole CLIP, its vision tower's with the shared projection."""
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder / 'config.json'} states no model: {str(error).splitlines()[0]}") from error
    if config.model_type == "clip":
        config.vision_config.projection_dim = config.projection_dim
        config = config.vision_config
    if not isinstance(config, kind.config_class):
        raise ModelError(f"{folder} holds a {config.model_type} model, not one for {kind.__name__}")
    return config


def _image_embedding(output: Any) -> Tensor:
    embedding: Tensor = output.image_embeds
    return embedding


def _class_token(output: Any) -> Tensor:
    token: Tensor = output.last_hidden_state[:, 0]
    return token


def _json(values: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
