"""CSD: weights with OpenAI's names give the style descriptor that an independent forward pass gives."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from retrieval.errors import ModelError
from retrieval.models.registry import load_embedder
from tests.slices import loads_model_libraries

pytestmark = loads_model_libraries

WIDTH, LAYERS, PATCH, SIDE, DIM = 128, 2, 56, 4, 24


def tensors_of(seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "backbone.conv1.weight": (WIDTH, 3, PATCH, PATCH),
        "backbone.class_embedding": (WIDTH,),
        "backbone.positional_embedding": (SIDE**2 + 1, WIDTH),
        "last_layer_style": (WIDTH, DIM),
        "last_layer_content": (WIDTH, DIM),
    }
    for name in ("ln_pre", "ln_post"):
        shapes |= {f"backbone.{name}.{kind}": (WIDTH,) for kind in ("weight", "bias")}
    for number in range(LAYERS):
        block = f"backbone.transformer.resblocks.{number}"
        shapes |= {f"{block}.{name}.{kind}": (WIDTH,) for name in ("ln_1", "ln_2") for kind in ("weight", "bias")}
        shapes |= {f"{block}.attn.in_proj_weight": (3 * WIDTH, WIDTH), f"{block}.attn.in_proj_bias": (3 * WIDTH,)}
        shapes |= {f"{block}.attn.out_proj.weight": (WIDTH, WIDTH), f"{block}.attn.out_proj.bias": (WIDTH,)}
        shapes |= {f"{block}.mlp.c_fc.weight": (4 * WIDTH, WIDTH), f"{block}.mlp.c_fc.bias": (4 * WIDTH,)}
        shapes |= {f"{block}.mlp.c_proj.weight": (WIDTH, 4 * WIDTH), f"{block}.mlp.c_proj.bias": (WIDTH,)}
    return {
        name: torch.randn(shape, generator=draw) / math.sqrt(shape[-1] if len(shape) == 2 else 40)
        for name, shape in shapes.items()
    }


def style(t: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """OpenAI's vision transformer, written out."""

    def normed(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (WIDTH,), t[f"{name}.weight"], t[f"{name}.bias"])

    patches = functional.conv2d(pixels, t["backbone.conv1.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    first = t["backbone.class_embedding"].expand(len(pixels), 1, -1)
    x = normed(torch.cat([first, patches], dim=1) + t["backbone.positional_embedding"], "backbone.ln_pre")
    for number in range(LAYERS):
        block = f"backbone.transformer.resblocks.{number}"
        q, k, v = functional.linear(
            normed(x, f"{block}.ln_1"), t[f"{block}.attn.in_proj_weight"], t[f"{block}.attn.in_proj_bias"]
        ).chunk(3, dim=-1)
        q, k, v = (each.unflatten(2, (WIDTH // 64, 64)).transpose(1, 2) for each in (q, k, v))
        seen = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + functional.linear(seen, t[f"{block}.attn.out_proj.weight"], t[f"{block}.attn.out_proj.bias"])
        inner = functional.linear(
            normed(x, f"{block}.ln_2"), t[f"{block}.mlp.c_fc.weight"], t[f"{block}.mlp.c_fc.bias"]
        )
        inner = inner * torch.sigmoid(1.702 * inner)
        x = x + functional.linear(inner, t[f"{block}.mlp.c_proj.weight"], t[f"{block}.mlp.c_proj.bias"])
    return functional.normalize(normed(x[:, 0], "backbone.ln_post") @ t["last_layer_style"], dim=1)


def test_the_descriptor_is_that_of_the_published_network(tmp_path: Path) -> None:
    tensors = tensors_of()
    save_file(tensors, tmp_path / "model.safetensors")
    embedder = load_embedder("csd", tmp_path, torch.device("cpu"), offline=True)
    image = Image.effect_mandelbrot((300, 260), (-2, -1, 1, 1), 50).convert("RGB")
    pixels = np.stack([embedder.prepare(image), embedder.prepare(image.rotate(90))])
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    normalised = torch.tensor(((pixels / 255.0 - mean) / std).transpose(0, 3, 1, 2), dtype=torch.float32)
    got = embedder.embed(pixels)
    np.testing.assert_allclose(got, style(tensors, normalised).numpy(), atol=1e-5)
    assert got.shape == (2, DIM)

    before = embedder.fingerprint()["weights"]
    save_file({**tensors, "last_layer_content": tensors["last_layer_content"] + 1}, tmp_path / "model.safetensors")
    again = load_embedder("csd", tmp_path, torch.device("cpu"), offline=True)
    assert again.fingerprint()["weights"] == before, "the content layer is not used"


@pytest.mark.parametrize("missing", ["last_layer_style", "backbone.transformer.resblocks.1.mlp.c_fc.bias"])
def test_other_weights_are_an_error(missing: str, tmp_path: Path) -> None:
    save_file({name: t for name, t in tensors_of().items() if name != missing}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="holds no weights of CSD"):
        load_embedder("csd", tmp_path, torch.device("cpu"), offline=True)
