"""Every known family: pixels and vectors are those of transformers' own processors and models."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.errors import ModelError
from retrieval.images.pixel_rules import PatchRules
from retrieval.models.registry import load_embedder
from retrieval.models.vit.architectures import ARCHITECTURES
from retrieval.models.vit.pooled import ViTEmbedder
from retrieval.models.weights.loading import quiet_loading
from tests.models.vit.conftest import FolderOf
from tests.slices import loads_model_libraries
from tests.support.hub.vision_models import MODELS, write_model

pytestmark = loads_model_libraries

CPU = torch.device("cpu")
IMAGES = [Image.effect_mandelbrot(size, (-2, -1, 1, 1), 50).convert("RGB") for size in ((90, 61), (47, 96), (32, 32))]
NO_PILLOW = ("dinov3_vit", "dinov3_convnext")  # transformers has their processor for torchvision only


def load(folder: Path) -> ViTEmbedder:
    embedder = load_embedder(f"hf:{folder}", None, CPU, offline=True)
    assert isinstance(embedder, ViTEmbedder)
    return embedder


def pixels_of(embedder: ViTEmbedder) -> Any:
    return np.stack([embedder.prepare(image) for image in IMAGES])


def processed(folder: Path) -> Mapping[str, torch.Tensor]:
    """What transformers' own processor makes of the images, with Pillow."""
    import transformers

    name = json.loads((folder / "preprocessor_config.json").read_text())["image_processor_type"]
    kind = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    found: Mapping[str, torch.Tensor] = kind.from_pretrained(folder)(images=IMAGES, return_tensors="pt")
    return found


Read = Callable[[Any, Mapping[str, Any]], Any]
READ: Mapping[str, Read] = {
    "clip": lambda model, inputs: model.get_image_features(**inputs),
    "metaclip_2": lambda model, inputs: model.get_image_features(**inputs),
    "siglip": lambda model, inputs: model.get_image_features(**inputs),
    "siglip2": lambda model, inputs: model.get_image_features(**inputs),
    "blip": lambda model, inputs: model.vision_model(**inputs).pooler_output,
    "vit_mae": lambda model, inputs: model(**inputs).last_hidden_state[:, 1:].mean(dim=1),
    "ijepa": lambda model, inputs: model(**inputs).last_hidden_state.mean(dim=1),
    **{name: lambda model, inputs: model(**inputs).pooler_output for name in (
        "dinov3_convnext", "beit", "swin", "swinv2", "convnext", "convnextv2"
    )},
}  # fmt: skip


def class_token(model: Any, inputs: Mapping[str, Any]) -> Any:
    return model(**inputs).last_hidden_state[:, 0]


def test_every_family_has_a_tiny_model() -> None:
    assert {name.removesuffix("_vision_model") for name in ARCHITECTURES} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_pixels_and_vectors_are_those_of_transformers(name: str, folder_of: FolderOf) -> None:
    from transformers import AutoModel

    folder = folder_of(name)
    embedder = load(folder)
    pixels = pixels_of(embedder)
    assert pixels.dtype == np.uint8
    inputs = embedder.inputs(pixels)
    if name not in NO_PILLOW:
        expected = processed(folder)
        std = max(embedder.preprocessing.std)
        levels = (inputs["pixel_values"] - expected["pixel_values"]).abs().max() * std * 255
        if isinstance(embedder.preprocessing, PatchRules):
            counts = expected["pixel_attention_mask"].bool()
            assert torch.equal(inputs["pixel_attention_mask"].bool(), counts)
            assert torch.equal(inputs["spatial_shapes"], expected["spatial_shapes"])
            levels = (inputs["pixel_values"] - expected["pixel_values"])[counts].abs().max() * std * 255
        assert levels < 0.01
        inputs = {key: expected[key] for key in inputs if key in expected}
    extra = {"mask_ratio": 0.0} if name == "vit_mae" else {}
    with quiet_loading(), torch.inference_mode():
        output = READ.get(name, class_token)(AutoModel.from_pretrained(folder, **extra).eval(), inputs)
    vectors = output if isinstance(output, torch.Tensor) else output.pooler_output
    got = embedder.embed(pixels)
    np.testing.assert_allclose(got, torch.nn.functional.normalize(vectors, dim=1).numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)
    assert np.abs(got[0] - got[1]).max() > 1e-3, "the vector depends on the image"
    assert (embedder.embed(pixels) == got).all()


@pytest.mark.parametrize("name", ["clip", "dinov2_with_registers", "blip", "siglip2"])
def test_pickles_hold_the_same_weights(name: str, folder_of: FolderOf, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder, whole = shutil.copytree(folder_of(name), tmp_path / "model"), load(folder_of(name))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    pickled = load(folder)
    assert pickled.fingerprint() == whole.fingerprint()
    assert (pickled.embed(pixels_of(whole)) == whole.embed(pixels_of(whole))).all()


def test_the_tower_alone_is_the_same_encoder(folder_of: FolderOf, tmp_path: Path) -> None:
    from transformers import CLIPVisionModelWithProjection

    folder = folder_of("clip")
    with quiet_loading():
        CLIPVisionModelWithProjection.from_pretrained(folder, projection_dim=24).save_pretrained(tmp_path)
    shutil.copy(folder / "preprocessor_config.json", tmp_path / "preprocessor_config.json")
    alone, whole = load(tmp_path), load(folder)
    np.testing.assert_allclose(alone.embed(pixels_of(alone)), whole.embed(pixels_of(whole)), atol=1e-6)


def test_pixels_may_stand_in_the_file_of_transformers_5(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = shutil.copytree(folder_of("siglip"), tmp_path / "model")
    stated = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"preprocessor_config\.json or processor_config\.json missing"):
        load(folder)
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": stated, "processor_class": "X"}))
    assert load(folder).fingerprint() == load(folder_of("siglip")).fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "'llama'; known: clip, .*dinov2_with_registers"),
        ({"model_type": "my_model", "auto_map": {"AutoModel": "harm.Model"}}, "'my_model'; known: clip"),
        ({"image_size": 64}, r"pixels \(32, 32\) \(height, width\) for a model that takes \(64, 64\)"),
        ({"num_hidden_layers": 3}, "weights are missing there"),
    ],
)
def test_what_can_not_be_loaded_is_one_error(
    change: dict[str, Any], message: str, folder_of: FolderOf, tmp_path: Path
) -> None:
    folder = shutil.copytree(folder_of("vit"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    (folder / "harm.py").write_text("raise SystemExit('code of a repository was run')")
    with pytest.raises(ModelError, match=message):
        load(folder)


def test_patches_do_not_suit_a_model_of_squares(folder_of: FolderOf, tmp_path: Path) -> None:
    folder = shutil.copytree(folder_of("siglip2"), tmp_path / "model")
    shutil.copy(folder_of("siglip") / "preprocessor_config.json", folder / "preprocessor_config.json")
    with pytest.raises(ModelError, match="do not suit its siglip2_vision_model model"):
        load(folder)


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    from transformers import AutoModel

    stated = {**MODELS["dinov2"][1], "crop_size": {"height": 24, "width": 40}}
    embedder = load(write_model(tmp_path / "model", "dinov2", stated))
    pixels = pixels_of(embedder)
    assert pixels.shape == (3, 24, 40, 3)
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(tmp_path / "model").eval()(**embedder.inputs(pixels)).pooler_output
    np.testing.assert_allclose(
        embedder.embed(pixels), torch.nn.functional.normalize(expected, dim=1).numpy(), atol=1e-5
    )
