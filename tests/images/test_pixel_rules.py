"""Pixels by ``preprocessor_config.json`` are those of transformers' own processors, for whatever the file states."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.errors import ModelError
from retrieval.images.pixel_rules import PROCESSORS, PatchRules, PixelRules, read_pixel_rules
from retrieval.models.normalisation import normalise
from tests.slices import loads_model_libraries

pytestmark = loads_model_libraries

CPU = torch.device("cpu")
SIZES = [(90, 61), (47, 96), (33, 32), (11, 12), (200, 9)]
SQUARE = {"height": 40, "width": 40}


def rules_of(stated: dict[str, Any], folder: Path, usual: str = "ViTImageProcessor") -> PixelRules | PatchRules:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(stated))
    return read_pixel_rules(path, usual)


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(noise)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("CLIP", {"size": 32, "crop_size": 24, "resample": 3}),
        ("CLIP", {"size": {"shortest_edge": 32}, "crop_size": {"height": 20, "width": 28}}),
        ("CLIP", {"size": {"shortest_edge": 16}, "crop_size": {"height": 33, "width": 24}}),
        ("CLIP", {"size": SQUARE, "do_center_crop": False, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]}),
        ("CLIP", {"size": SQUARE, "crop_size": {"height": 31, "width": 40}, "do_normalize": False}),
        ("CLIP", {"do_resize": False, "crop_size": {"height": 21, "width": 30}}),
        ("Bit", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "resample": 3}),
        ("ViT", {"size": 32, "resample": 2}),
        ("ViT", {"size": {"height": 24, "width": 40}, "resample": 0, "do_rescale": False}),
        ("ViT", {"size": {"height": 24, "width": 40}, "rescale_factor": 0.5, "image_std": [0.1, 0.2, 0.3]}),
        ("Siglip", {"size": SQUARE, "resample": 2, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}),
        ("DeiT", {"size": SQUARE, "crop_size": {"height": 32, "width": 32}}),
        ("DeiT", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 1}),
        ("Beit", {"size": 40, "crop_size": 32, "do_center_crop": True, "do_reduce_labels": False}),
        ("Blip", {"size": SQUARE, "do_convert_rgb": True}),
        ("ConvNext", {"size": {"shortest_edge": 32}, "crop_pct": 0.8}),
        ("ConvNext", {"size": {"shortest_edge": 384}}),
        ("Siglip2", {"patch_size": 4, "max_num_patches": 30}),
        ("Siglip2", {"patch_size": 8, "max_num_patches": 256, "resample": 3}),
    ],
)
def test_they_are_those_of_transformers(
    name: str, stated: dict[str, Any], size: tuple[int, int], tmp_path: Path
) -> None:
    import transformers

    kind = f"{name}ImageProcessor"
    if transformers.__version__ < "5" and (name == "ConvNext" or (name == "DeiT" and stated["size"] is not SQUARE)):
        pytest.skip("that processor of transformers 4 computes something else, or nothing; ours are those of 5")
    rules = rules_of({**stated, "image_processor_type": kind}, tmp_path)
    processor = getattr(transformers, f"{kind}Pil", None) or getattr(transformers, kind)
    image = picture(size)
    expected = processor.from_pretrained(tmp_path)(images=image, return_tensors="pt")["pixel_values"]
    pixels = rules.prepare(image)[None]
    if isinstance(rules, PatchRules):
        got = normalise(pixels[:, 1:], rules, CPU).permute(0, 2, 3, 1).flatten(2)
        count = int(np.prod(rules.grid(*size[::-1])))
        got, expected = got[:, :count], expected[:, :count]
    else:
        assert rules.output == tuple(expected.shape[2:])
        got = normalise(pixels, rules, CPU)
    level = torch.tensor(rules.std).reciprocal().max() / 255
    assert (got - expected).abs().max() <= 0.01 * level


def test_dinov3_resizes_before_it_rounds_and_is_within_one_level(tmp_path: Path) -> None:
    stated = {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": SQUARE, "resample": 2, "crop_size": None}
    rules = rules_of(stated, tmp_path)
    for size in SIZES:
        image = picture(size)
        whole = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
        expected = torch.nn.functional.interpolate(whole, (40, 40), mode="bilinear", antialias=True)[0]
        got = torch.from_numpy(rules.prepare(image)).permute(2, 0, 1)
        assert (got - expected).abs().max() <= 1


def test_names_of_implementations_and_of_old_files_are_known(tmp_path: Path) -> None:
    plain = rules_of({"image_processor_type": "CLIPImageProcessor"}, tmp_path)
    assert rules_of({"image_processor_type": "CLIPImageProcessorFast"}, tmp_path) == plain
    assert rules_of({"feature_extractor_type": "CLIPFeatureExtractor", "size": 224}, tmp_path) == plain
    assert rules_of({"size": {"shortest_edge": 224, "height": None}}, tmp_path, "CLIPImageProcessor") == plain
    assert read_pixel_rules(tmp_path / "none.json", "CLIPImageProcessor") == plain
    for name in set(PROCESSORS) - {"ConvNextImageProcessor"}:
        assert rules_of({}, tmp_path, name) != plain or PROCESSORS[name] == PROCESSORS["CLIPImageProcessor"]


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"image_processor_type": "Pix2StructImageProcessor"}, "unknown image processor Pix2Struct.*; known: CLIP"),
        ({"size": {"shortest_edge": 32}}, "neither resizes to one height and width nor crops"),
        ({"do_resize": False}, "neither resizes to one height and width nor crops"),
        ({"size": {"longest_edge": 32}}, "neither a height and a width nor a shortest edge"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "neither a height and a width nor a shortest edge"),
        ({"do_pad": True}, "do_pad is not supported"),
        ({"image_mean": [0.5]}, "states no pixels of a fixed size"),
        ({"size": "large"}, "states no pixels of a fixed size"),
        ([1, 2], "states no pixels of a fixed size"),
    ],
)
def test_what_states_no_fixed_size_is_an_error(stated: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        rules_of(stated, tmp_path)
