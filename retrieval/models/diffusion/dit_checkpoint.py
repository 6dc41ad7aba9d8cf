"""Read DiT weights from the original checkpoint or the diffusers folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from retrieval.errors import ModelError
from retrieval.models.weights.reading import read_tensors

HEADS = 16  # DiT-XL; an original checkpoint does not state it
_BLOCK_NAMES = (  # (original name in a block, diffusers' name)
    ("attn.proj", "attn1.to_out.0"),
    ("mlp.fc1", "ff.net.0.proj"),
    ("mlp.fc2", "ff.net.2"),
    ("adaLN_modulation.1", "norm1.linear"),
)
_SHARED_NAMES = (
    ("x_embedder.proj", "pos_embed.proj"),
    ("final_layer.linear", "proj_out_2"),
    ("final_layer.adaLN_modulation.1", "proj_out_1"),
)
_EMBEDDING_NAMES = (  # DiT has one embedding for all blocks, diffusers one for each block
    ("t_embedder.mlp.0", "timestep_embedder.linear_1"),
    ("t_embedder.mlp.2", "timestep_embedder.linear_2"),
    ("y_embedder.embedding_table", "class_embedder.embedding_table"),
)


def read_checkpoint(folder: Path) -> Mapping[str, Tensor]:
    """Return the state dict of the one original checkpoint in ``folder``, its averaged (EMA) weights where it has them.

    Raises:
        ModelError: no such file, several of them, or one that can't be read.
    """
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.pt")])
    if len(files) != 1:
        raise ModelError(f"{folder} holds no DiT model: it needs transformer/ or one original checkpoint")
    tensors = read_tensors(files[0])
    averaged = {name.removeprefix("ema."): value for name, value in tensors.items() if name.startswith("ema.")}
    return averaged or tensors


def stated_heads(folder: Path) -> int:
    """Return ``num_attention_heads`` of the folder's config.json, or :data:`HEADS` without that file.

    Raises:
        ModelError: the file does not state the number.
    """
    path = folder / "config.json"
    try:
        return int(json.loads(path.read_text("utf-8"))["num_attention_heads"]) if path.is_file() else HEADS
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} does not state num_attention_heads: {error}") from error


def load_original(weights: Mapping[str, Tensor], heads: int = HEADS) -> Any:
    """Return diffusers' DiT with the weights of an original checkpoint.

    Args:
        weights: the original state dict.
        heads: attention heads, which the checkpoint does not state.

    Raises:
        ModelError: weights are missing or have another shape.
    """
    from diffusers import DiTTransformer2DModel

    try:
        width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
        depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        kind: Any = DiTTransformer2DModel
        network = kind(
            num_attention_heads=heads,
            attention_head_dim=width // heads,
            in_channels=channels,
            out_channels=len(weights["final_layer.linear.weight"]) // patch**2,
            num_layers=depth,
            sample_size=patch * round(weights["pos_embed"].shape[1] ** 0.5),
            patch_size=patch,
            num_embeds_ada_norm=len(weights["y_embedder.embedding_table.weight"]) - 1,
            norm_eps=1e-6,
        )
        network.load_state_dict(convert(weights, depth), strict=False)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"these weights are not an original DiT checkpoint: {str(error).strip().splitlines()[0]}"
        ) from error
    network.pos_embed.pos_embed = weights["pos_embed"]
    return network


def convert(weights: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Return an original state dict of ``depth`` blocks under diffusers' names."""
    renamed: dict[str, Tensor] = {}

    def copy(original: str, ours: str) -> None:
        for kind in ("weight", "bias"):
            if f"{original}.{kind}" in weights:
                renamed[f"{ours}.{kind}"] = weights[f"{original}.{kind}"]

    for original, ours in _SHARED_NAMES:
        copy(original, ours)
    for number in range(depth):
        block, target = f"blocks.{number}", f"transformer_blocks.{number}"
        for original, ours in _BLOCK_NAMES:
            copy(f"{block}.{original}", f"{target}.{ours}")
        for original, ours in _EMBEDDING_NAMES:
            copy(original, f"{target}.norm1.emb.{ours}")
        for kind in ("weight", "bias"):
            for name, part in zip("qkv", weights[f"{block}.attn.qkv.{kind}"].chunk(3), strict=True):
                renamed[f"{target}.attn1.to_{name}.{kind}"] = part
    return renamed
