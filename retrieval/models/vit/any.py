"""Vision models of any repository as embedders; :mod:`retrieval.models.vit.architectures` has the table."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from retrieval.errors import ModelError
from retrieval.images.pixel_rules import PatchRules, PixelRules, read_pixel_rules
from retrieval.models.descriptions import Description
from retrieval.models.protocols import Pixels
from retrieval.models.references import folder_in
from retrieval.models.repositories import ANY_PIXELS
from retrieval.models.vit.architectures import Architecture, find_architecture, pooled
from retrieval.models.vit.pooled import ViTEmbedder
from retrieval.models.weights.finding import Weights, find_weights
from retrieval.models.weights.loading import load_pretrained
from retrieval.models.weights.parts import CONFIG
from retrieval.models.weights.reading import model_errors


def load(description: Description, folder: Path | None, device: torch.device, offline: bool) -> ViTEmbedder:
    """Load a repository's vision model, float32.

    Raises:
        ModelError: the model is unknown, its pixels have no fixed size, or weights are missing or incomplete.
    """
    weights = find_weights(description, folder or folder_in(description.name), offline)
    architecture = find_architecture(model_type(weights.root), weights.root)
    return load_found(description, architecture, weights, device)


def model_type(root: Path) -> str:
    """Return the ``model_type`` that a folder's configuration states."""
    path = root / CONFIG
    with model_errors(f"{path} states no model"):
        return str(json.loads(path.read_text("utf-8"))["model_type"])


def load_found(
    description: Description, architecture: Architecture, weights: Weights, device: torch.device
) -> ViTEmbedder:
    """Load a model of a known architecture from the files that were found."""
    rules = read_pixel_rules(_pixels_file(weights.root), architecture.processor)
    config = _config(weights.root, architecture)
    _check_size(weights.root, architecture, config, rules)
    kind = _class(architecture.kind)
    model = load_pretrained(
        kind, weights[""], description.name, dtype=torch.float32, config=config, **architecture.options
    )
    embedder = EMBEDDER_OF.get(architecture.kind, ViTEmbedder)
    return embedder(
        name=f"hf:{config.model_type}",
        model=model.to(device),
        preprocessing=rules,
        pool=pooled(architecture, config),
        identify_weights=weights.digest,
    )


class PatchEmbedder(ViTEmbedder):
    """SigLIP 2 NaFlex: images of any shape, cut into patches by :class:`retrieval.images.pixel_rules.PatchRules`."""

    def inputs(self, pixels: Pixels) -> dict[str, Tensor]:
        """Return the patches ``[images, most_patches, patch x patch x 3]``, which of them count, and their grids."""
        patches = super().inputs(pixels[:, 1:])["pixel_values"]  # [images, 3, most_patches, patch x patch]
        grids = torch.from_numpy(np.ascontiguousarray(pixels[:, 0].reshape(len(pixels), -1)[:, :4]).view("<u2"))
        grids = grids.to(patches.device, torch.int64)
        numbers = torch.arange(patches.shape[2], device=patches.device)
        return {
            "pixel_values": patches.permute(0, 2, 3, 1).flatten(2),
            "pixel_attention_mask": (numbers < grids.prod(dim=1, keepdim=True)).to(torch.int32),
            "spatial_shapes": grids,
        }


class MaskedEmbedder(ViTEmbedder):
    """ViT-MAE, which would shuffle its patches; an ascending order keeps them as they are."""

    def inputs(self, pixels: Pixels) -> dict[str, Tensor]:
        """Return the pixels, and the numbers that order the patches."""
        found = super().inputs(pixels)
        height, width = (side // self.model.config.patch_size for side in pixels.shape[1:3])
        order = torch.arange(float(height * width), device=found["pixel_values"].device)
        return {**found, "noise": order.expand(len(pixels), -1)}


EMBEDDER_OF: Mapping[str, type[ViTEmbedder]] = {"Siglip2VisionModel": PatchEmbedder, "ViTMAEModel": MaskedEmbedder}
"""The embedders of models that take more than pixels, by their class in transformers."""


def _pixels_file(root: Path) -> Path:
    """Return the file that states the pixels: the first that exists."""
    return next((root / name for name in ANY_PIXELS if (root / name).is_file()), root / ANY_PIXELS[0])


def _class(name: str) -> Any:
    found = getattr(transformers, name, None)
    if found is None:
        raise ModelError(f"transformers {transformers.__version__} has no {name}; a newer version has")
    return found


def _config(root: Path, architecture: Architecture) -> Any:
    """Read the configuration of the vision model; a model with two towers has it inside its own."""
    with model_errors(f"{root / CONFIG} states no model"):
        config: Any = transformers.AutoConfig.from_pretrained(root, local_files_only=True, trust_remote_code=False)
        if hasattr(config, "vision_config"):
            if hasattr(config, "projection_dim"):
                config.vision_config.projection_dim = config.projection_dim
            config = config.vision_config
        for name, value in architecture.changes.items():
            setattr(config, name, value)
    return config


def _check_size(root: Path, architecture: Architecture, config: Any, rules: PixelRules | PatchRules) -> None:
    """Raise a ModelError if the model can't take the pixels that the repository states."""
    if isinstance(rules, PatchRules) or architecture.kind == "Siglip2VisionModel":
        if not (isinstance(rules, PatchRules) and architecture.kind == "Siglip2VisionModel"):
            raise ModelError(f"{root} states pixels that do not suit its {config.model_type} model")
        if rules.patch != config.patch_size:
            raise ModelError(f"{root} states patches of {rules.patch} px for a model that takes {config.patch_size}")
        return
    taken = _pair(getattr(config, "image_size", rules.output))
    if not architecture.any_size and taken != rules.output:
        raise ModelError(f"{root} states pixels {rules.output} (height, width) for a model that takes {taken}")


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(height), int(width)
