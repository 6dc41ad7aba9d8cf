"""Q, K and V are those that each network's own attention computes with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.errors import ModelError, UsageError
from retrieval.models.modes import Target
from retrieval.models.projection import LinearProjection
from retrieval.models.protocols import HiddenExtractor, ProjectedOutput
from retrieval.models.registry import load_extractor
from retrieval.models.vit.architectures import ARCHITECTURES
from retrieval.models.vit.attention import VisionTransformer
from retrieval.scoring.outputs import attention_output
from retrieval.settings import ModelSettings
from tests.models.vit.conftest import FolderOf
from tests.slices import loads_model_libraries
from tests.support.hub.vision_models import MODELS

pytestmark = loads_model_libraries

CPU = torch.device("cpu")
READABLE = [name for name in MODELS if ARCHITECTURES[name].attention]
IMAGES = [Image.effect_mandelbrot(size, (-2, -1, 1, 1), 50).convert("RGB") for size in ((90, 61), (47, 96))]


def load(model: str, weights: Path | None = None) -> VisionTransformer:
    settings = ModelSettings(model=model, weights=None if weights is None else str(weights))
    extractor = load_extractor(settings, CPU, offline=True)
    assert isinstance(extractor, VisionTransformer)
    return extractor


def own_output(extractor: VisionTransformer, layer: str, pixels: Any) -> tuple[torch.Tensor, Any]:
    """What the layer's attention returns in a whole forward pass, and its output projection."""
    block = extractor.layer(layer)
    attention = next(getattr(block, name) for name in ("self_attn", "attention") if hasattr(block, name))
    found: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handle = attention.register_forward_hook(keep)
    try:
        extractor.forward(pixels)
    finally:
        handle.remove()
    parts = (attention, getattr(attention, "output", None))  # transformers 4 has one more module
    names = ("out_proj", "o_proj", "projection", "dense")
    projection = next(getattr(part, name) for part in parts for name in names if hasattr(part, name))
    return found[0], projection


@pytest.mark.parametrize("layer", ["0", "last"])
@pytest.mark.parametrize("name", READABLE)
def test_the_tensors_give_the_networks_own_attention(name: str, layer: str, folder_of: FolderOf) -> None:
    extractor = load(f"hf-aas:{folder_of(name)}#{layer}")
    pixels = np.stack([extractor.prepare(image) for image in IMAGES])
    target = Target(layer, 0)
    tensors = extractor.extract(pixels, [target], "query")[target]
    output = attention_output(tensors.q, tensors.k, tensors.v)[:, 0]  # [images, heads, tokens, head_dim]
    expected, projection = own_output(extractor, layer, pixels)
    with torch.inference_mode():
        got = projection(output.transpose(1, 2).flatten(2))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)

    assert isinstance(extractor, HiddenExtractor)
    hidden = extractor.hidden(pixels, [target], "gallery")[target]
    assert hidden.shape[1:] == extractor.hidden_shape(target)
    stored = LinearProjection.from_arrays(extractor.projection(target).arrays())(hidden)
    for one, other in zip((stored.q, stored.k, stored.v), (tensors.q, tensors.k, tensors.v), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("named", "name"), [("clip-aas", "clip"), ("dinov2-aas", "dinov2")])
def test_the_named_models_are_the_same(named: str, name: str, folder_of: FolderOf) -> None:
    folder, target = folder_of(name), Target("last", 0)
    one, other = load(named, folder), load(f"hf-aas:{folder}")
    pixels = np.stack([one.prepare(image) for image in IMAGES])
    assert (pixels == np.stack([other.prepare(image) for image in IMAGES])).all()
    first, second = (each.extract(pixels, [target], "query")[target] for each in (one, other))
    assert torch.equal(first.q, second.q)
    assert torch.equal(first.v, second.v)
    assert isinstance(one, ProjectedOutput) == isinstance(other, ProjectedOutput) == (name == "clip")


def test_layers_and_models_that_do_not_exist_are_named(folder_of: FolderOf) -> None:
    with pytest.raises(UsageError, match="unknown layer '2' of hf-aas:vit; known: 0, 1, last"):
        load(f"hf-aas:{folder_of('vit')}#2")
    for name in set(MODELS) - set(READABLE):
        with pytest.raises(ModelError, match=f"can't read a {name} model: .*; it can read: clip, "):
            load(f"hf-aas:{folder_of(name)}")
