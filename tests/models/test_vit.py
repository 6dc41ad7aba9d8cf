"""CLIP and DINOv2 embedders on tiny random models, against transformers and the golden pooled scores."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cli.advice import sentence_of
from retrieval.errors import ModelError, UsageError
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.models.registry import load_embedder
from tests.slices import loads_model_libraries
from tests.support.golden import EVERY_GOLDEN, IMAGES, dinov2_at_98_px, needs_every_golden

pytestmark = loads_model_libraries

CPU = torch.device("cpu")


def write_tiny_models(folder: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    clip = CLIPVisionConfig(**sizes, intermediate_size=64, image_size=32, patch_size=8, projection_dim=24)
    CLIPVisionModelWithProjection(clip).save_pretrained(folder / "clip")
    Dinov2Model(Dinov2Config(**sizes, image_size=32, patch_size=8)).save_pretrained(folder / "dinov2")
    for name in ("clip", "dinov2"):
        stated = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
        (folder / name / "preprocessor_config.json").write_text(json.dumps(stated))


@pytest.mark.parametrize(("name", "dim"), [("clip", 24), ("dinov2", 32)])
def test_vectors_have_norm_one_and_are_the_models_own(name: str, dim: int, tmp_path: Path) -> None:
    from transformers import CLIPVisionModelWithProjection, Dinov2Model

    write_tiny_models(tmp_path)
    embedder = load_embedder(name, tmp_path / name, CPU, offline=True)
    image = Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 50).convert("RGB")
    pixels = embedder.prepare(image)
    assert pixels.shape == (32, 32, 3)
    vectors = embedder.embed(np.stack([pixels, pixels[::-1].copy()]))
    assert vectors.shape == (2, dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)

    clip = name == "clip"
    mean, std = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)) if clip else (
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )  # fmt: skip
    inputs = torch.tensor(((pixels / 255.0 - mean) / std).transpose(2, 0, 1)[None], dtype=torch.float32)
    model = (CLIPVisionModelWithProjection if clip else Dinov2Model).from_pretrained(tmp_path / name)
    with torch.inference_mode():
        output = model.eval()(pixel_values=inputs)
    expected = (output.image_embeds if clip else output.last_hidden_state[:, 0])[0].numpy()
    np.testing.assert_allclose(vectors[0], expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.slow
@needs_every_golden
def test_the_golden_pooled_scores_of_clip() -> None:
    embedder = load_embedder("clip", EVERY_GOLDEN / "tiny" / "clip", CPU, offline=True)
    pixels = [embedder.prepare(read_image(path, DecodeRules(alpha="drop"))[0]) for path in IMAGES]
    vectors = embedder.embed(np.stack(pixels))
    golden = np.array(json.loads((EVERY_GOLDEN / "vit.json").read_text())["clip_pooled_x100"])
    np.testing.assert_allclose(100 * vectors @ vectors.T, golden, atol=1e-3)


@pytest.mark.slow
@needs_every_golden
def test_the_golden_pooled_scores_of_dinov2_at_98_px(tmp_path: Path) -> None:
    embedder = load_embedder("dinov2", dinov2_at_98_px(tmp_path, EVERY_GOLDEN / "tiny"), CPU, offline=True)
    vectors = embedder.embed(np.stack([embedder.prepare(read_image(p, DecodeRules(alpha="drop"))[0]) for p in IMAGES]))
    golden = np.array(json.loads((EVERY_GOLDEN / "vit.json").read_text())["dino98_pooled_x100"])
    np.testing.assert_allclose(100 * vectors @ vectors.T, golden, atol=1e-3)


def test_missing_and_damaged_weights_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_embedder("clip", tmp_path / "none", CPU, offline=True)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"model\.safetensors or pytorch_model\.bin missing"):
        load_embedder("clip", tmp_path, CPU, offline=True)
    write_tiny_models(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "clip" / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"states no model"):
        load_embedder("clip", tmp_path, CPU, offline=True)
    with pytest.raises(ModelError, match="holds a dinov2 model"):
        load_embedder("clip", tmp_path / "dinov2", CPU, offline=True)
    (tmp_path / "clip" / "model.safetensors").write_bytes((tmp_path / "dinov2" / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="weights are missing there"):
        load_embedder("clip", tmp_path / "clip", CPU, offline=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ModelError, match="weights of openai/clip-vit-base-patch32 are needed") as caught:
        load_embedder("clip", None, CPU, offline=True)
    assert "605 MB" in sentence_of(caught.value)
    with pytest.raises(UsageError, match=r"clip, dinov2, siglip2, .*, descriptor, subject, hf:OWNER/NAME, or none"):
        load_embedder("resnet", None, CPU, offline=True)
