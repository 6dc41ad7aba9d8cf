"""The vision models of transformers that can be loaded, by the ``model_type`` in their ``config.json``.

An entry says which class loads the weights, how its output becomes one vector, and where its attention lies. Entries
name classes as text, so importing this module is cheap, and an older transformers lacks only the models that it lacks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from retrieval.errors import ModelError

Pooling = Literal["embedding", "pooler", "class token", "mean of patches"]
"""``embedding`` is the projected vector that the model compares with text. ``pooler`` is the model's own summary: an
attention pool (SigLIP) or a normalised mean (BEiT, Swin, ConvNeXT). The others read the last layer's tokens."""


@dataclass(frozen=True)
class AttentionPlace:
    """Where the self-attention of an encoder layer is; all layers are alike."""

    blocks: tuple[str, ...]  # paths of the list of layers, one of them in each version of transformers
    norm: str  # of the layer, whose output is what attention projects
    module: str  # of the layer; it or its "attention" holds the projections
    prefix: Callable[[Any], int]  # from the configuration to the tokens before the patches
    projected: bool = False  # outputs pass through the layer's output projection before they are compared
    rotary: bool = False  # queries and keys of patches are rotated by their position


@dataclass(frozen=True)
class Architecture:
    """One family of vision models."""

    kind: str  # a class of transformers
    pooling: Pooling
    processor: str  # in retrieval.images.pixel_rules.PROCESSORS, where the repository names none
    attention: AttentionPlace | None = None
    without: str = ""  # why AAS can't read its attention
    any_size: bool = False  # whether it takes pixels of other sizes than its configuration names
    options: Mapping[str, Any] = field(default_factory=dict)  # to load it with
    changes: Mapping[str, Any] = field(default_factory=dict)  # of its configuration


def _one(config: Any) -> int:
    return 1


def _with_registers(config: Any) -> int:
    return 1 + int(config.num_register_tokens)


def _none(config: Any) -> int:
    return 0


def _two(config: Any) -> int:
    return 2


_OF_CLIP = AttentionPlace(
    ("vision_model.encoder.layers", "encoder.layers"), "layer_norm1", "self_attn", _one, projected=True
)
_OF_SIGLIP = replace(_OF_CLIP, prefix=_none, projected=False)
_OF_DINOV2 = AttentionPlace(("encoder.layer", "layers"), "norm1", "attention", _one)
_OF_DINOV3 = AttentionPlace(("layer", "model.layer"), "norm1", "attention", _with_registers, rotary=True)
_OF_VIT = AttentionPlace(("layers", "encoder.layer"), "layernorm_before", "attention", _one)

_BY_WINDOW = "its attention stays inside windows"
_BY_POSITION = "its attention adds a bias by position"
_CONVOLUTION = "it is a convolutional network"

_CLIP = Architecture("CLIPVisionModelWithProjection", "embedding", "CLIPImageProcessor", _OF_CLIP)
_METACLIP2 = replace(_CLIP, kind="MetaClip2VisionModelWithProjection")
_SIGLIP = Architecture("SiglipVisionModel", "pooler", "SiglipImageProcessor", _OF_SIGLIP)
_NAFLEX = Architecture(
    "Siglip2VisionModel", "pooler", "Siglip2ImageProcessor", without="its images differ in their number of patches"
)
_BLIP = Architecture(
    "BlipVisionModel",
    "pooler",
    "BlipImageProcessor",
    replace(_OF_SIGLIP, prefix=_one),
    options=MappingProxyType({"key_mapping": {r"^vision_model\.": ""}}),
)
_DINOV2 = Architecture("Dinov2Model", "class token", "BitImageProcessor", _OF_DINOV2, any_size=True)
_WITHOUT_POOLER = MappingProxyType({"add_pooling_layer": False})
_VIT = Architecture("ViTModel", "class token", "ViTImageProcessor", _OF_VIT, options=_WITHOUT_POOLER)
_SWIN = Architecture("SwinModel", "pooler", "ViTImageProcessor", without=_BY_WINDOW, any_size=True)
_CONVNEXT = Architecture("ConvNextModel", "pooler", "ConvNextImageProcessor", without=_CONVOLUTION, any_size=True)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "clip": _CLIP,
        "clip_vision_model": _CLIP,
        "metaclip_2": _METACLIP2,
        "metaclip_2_vision_model": _METACLIP2,
        "siglip": _SIGLIP,
        "siglip_vision_model": _SIGLIP,
        "siglip2": _NAFLEX,
        "siglip2_vision_model": _NAFLEX,
        "blip": _BLIP,
        "blip_vision_model": _BLIP,
        "dinov2": _DINOV2,
        "dinov2_with_registers": replace(
            _DINOV2, kind="Dinov2WithRegistersModel", attention=replace(_OF_DINOV2, prefix=_with_registers)
        ),
        "dinov3_vit": Architecture(
            "DINOv3ViTModel", "class token", "DINOv3ViTImageProcessor", _OF_DINOV3, any_size=True
        ),
        "dinov3_convnext": Architecture(
            "DINOv3ConvNextModel", "pooler", "DINOv3ViTImageProcessor", without=_CONVOLUTION, any_size=True
        ),
        "vit": _VIT,
        "deit": replace(
            _VIT, kind="DeiTModel", processor="DeiTImageProcessor", attention=replace(_OF_VIT, prefix=_two)
        ),
        "vit_msn": replace(_VIT, kind="ViTMSNModel", options=MappingProxyType({})),
        "vit_mae": replace(
            _VIT,
            kind="ViTMAEModel",
            pooling="mean of patches",
            options=MappingProxyType({}),
            changes=MappingProxyType({"mask_ratio": 0.0}),  # no patch is hidden
        ),
        "ijepa": replace(_VIT, kind="IJepaModel", pooling="mean of patches", attention=replace(_OF_VIT, prefix=_none)),
        "beit": Architecture("BeitModel", "pooler", "BeitImageProcessor", without=_BY_POSITION),
        "swin": _SWIN,
        "swinv2": replace(_SWIN, kind="Swinv2Model"),
        "convnext": _CONVNEXT,
        "convnextv2": replace(_CONVNEXT, kind="ConvNextV2Model"),
    }
)
"""The families of vision models that are known."""


def find_architecture(model_type: str, place: Path) -> Architecture:
    """Return the entry for a ``model_type``.

    Raises:
        ModelError: it is unknown; the message lists the known ones.
    """
    if model_type not in ARCHITECTURES:
        raise ModelError(f"{place} holds a model of type {model_type!r}; known: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[model_type]


def pooled(architecture: Architecture, config: Any) -> Callable[[Any], Tensor]:
    """Return the function from the network's output to the vectors ``[images, dim]``."""
    attention = architecture.attention
    prefix = attention.prefix(config) if attention is not None else 0
    functions: Mapping[Pooling, Callable[[Any], Tensor]] = {
        "embedding": lambda output: torch.as_tensor(output.image_embeds),
        "pooler": lambda output: torch.as_tensor(output.pooler_output),
        "class token": lambda output: torch.as_tensor(output.last_hidden_state)[:, 0],
        "mean of patches": lambda output: torch.as_tensor(output.last_hidden_state)[:, prefix:].mean(dim=1),
    }
    return functions[architecture.pooling]
