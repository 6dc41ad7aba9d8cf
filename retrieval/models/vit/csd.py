"""Contrastive style descriptors (CSD; Somepalli et al., 2024): CLIP ViT-L/14 with a linear layer trained for style.

The weights are a port of the published checkpoint to safetensors. They have OpenAI's names; here they become those of
transformers, where the style layer takes the place of CLIP's projection. The authors say that the checkpoint does not
reproduce the figures of their paper.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrieval.images.preprocessing import CLIP_PREPROCESSING
from retrieval.models.descriptions import Description
from retrieval.models.vit.architectures import ARCHITECTURES, pooled
from retrieval.models.vit.pooled import ViTEmbedder
from retrieval.models.weights.finding import find_weights
from retrieval.models.weights.reading import model_errors, read_tensors

HEAD_DIM = 64  # of all of OpenAI's vision transformers
_OF_BLOCKS = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OTHERS = {
    "backbone.conv1.weight": "embeddings.patch_embedding.weight",
    "backbone.class_embedding": "embeddings.class_embedding",
    "backbone.positional_embedding": "embeddings.position_embedding.weight",
    "backbone.ln_pre.weight": "pre_layrnorm.weight",
    "backbone.ln_pre.bias": "pre_layrnorm.bias",
    "backbone.ln_post.weight": "post_layernorm.weight",
    "backbone.ln_post.bias": "post_layernorm.bias",
}
_BLOCKS = "backbone.transformer.resblocks."


def load(description: Description, folder: Path | None, device: torch.device, offline: bool) -> ViTEmbedder:
    """Load CSD, float32; the vector is the style descriptor.

    Raises:
        ModelError: weights are missing, incomplete, or not those of CSD.
    """
    from transformers import CLIPVisionModelWithProjection

    weights = find_weights(description, folder, offline)
    path = weights[""].weights[0]
    with model_errors(f"{path} holds no weights of CSD"):
        tensors = read_tensors(path)
        config = _config(tensors)
        model: Any = CLIPVisionModelWithProjection(config)
        model.load_state_dict(dict(_renamed(tensors)))
    return ViTEmbedder(
        name="csd",
        model=model.eval().requires_grad_(False).to(device),
        preprocessing=CLIP_PREPROCESSING,
        pool=pooled(ARCHITECTURES["clip"], config),
        identify_weights=weights.digest,
    )


def _config(tensors: Mapping[str, Tensor]) -> Any:
    from transformers import CLIPVisionConfig

    width, _, _, patch = tensors["backbone.conv1.weight"].shape
    side = math.isqrt(tensors["backbone.positional_embedding"].shape[0] - 1)
    layers = {name.removeprefix(_BLOCKS).partition(".")[0] for name in tensors if name.startswith(_BLOCKS)}
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=tensors[f"{_BLOCKS}0.mlp.c_fc.weight"].shape[0],
        projection_dim=tensors["last_layer_style"].shape[1],
        num_hidden_layers=len(layers),
        num_attention_heads=width // HEAD_DIM,
        image_size=side * patch,
        patch_size=patch,
    )


def _renamed(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Return the tensors under transformers' names, float32; the fused Q, K and V become three."""
    yield "visual_projection.weight", tensors["last_layer_style"].float().T.contiguous()
    for name, other in _OTHERS.items():
        yield f"vision_model.{other}", tensors[name].float()
    for name, tensor in tensors.items():
        if not name.startswith(_BLOCKS):
            continue
        number, _, rest = name.removeprefix(_BLOCKS).partition(".")
        place, _, kind = rest.rpartition(".")
        block = f"vision_model.encoder.layers.{number}"
        if place == "attn":
            for letter, part in zip("qkv", tensor.float().chunk(3), strict=True):
                yield f"{block}.self_attn.{letter}_proj.{kind.removeprefix('in_proj_')}", part
        else:
            yield f"{block}.{_OF_BLOCKS[place]}.{kind}", tensor.float()
