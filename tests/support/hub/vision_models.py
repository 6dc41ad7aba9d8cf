"""Tiny vision models with random weights, in the layout of the real repositories."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from retrieval.models.weights.loading import quiet_loading

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**TOWER, "image_size": 32, "patch_size": 8}
WORDS = {**TOWER, "vocab_size": 99, "max_position_embeddings": 16}
CLIP_STATISTICS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
EXACT = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
CROP = {**EXACT, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
SQUARE = {"size": {"height": 32, "width": 32}}
VIT_PIXELS = {**EXACT, **HALF, **SQUARE, "image_processor_type": "ViTImageProcessor", "resample": 2}
CLIP_PIXELS = {
    **CROP,
    **CLIP_STATISTICS,
    "size": {"shortest_edge": 32},
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "resample": 3,
}
SIGLIP_PIXELS = {**EXACT, **HALF, **SQUARE, "image_processor_type": "SiglipImageProcessor", "resample": 2}
DINOV2_PIXELS = {
    **CROP,
    **IMAGENET,
    "size": {"shortest_edge": 36},
    "image_processor_type": "BitImageProcessor",
    "resample": 3,
}

Pixels = Mapping[str, Any]


def _two_towers(kind: str, config: str, vision: Mapping[str, Any], words: Mapping[str, Any]) -> Any:
    import transformers

    return getattr(transformers, kind)(
        getattr(transformers, config)(text_config=dict(words), vision_config=dict(vision), projection_dim=24)
    )


def _alone(kind: str, config: str, **sizes: Any) -> Any:
    import transformers

    return getattr(transformers, kind)(getattr(transformers, config)(**sizes))


def _blip() -> Any:
    words = {**TOWER, "vocab_size": 99, "encoder_hidden_size": 32, "max_position_embeddings": 16}
    return _two_towers("BlipModel", "BlipConfig", VISION, words)


NAFLEX_PIXELS = {
    **EXACT,
    **HALF,
    "image_processor_type": "Siglip2ImageProcessor",
    "patch_size": 8,
    "max_num_patches": 20,
    "resample": 2,
}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4}
CONVNEXT = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "image_size": 32}
CONVNEXT_PIXELS = {
    **EXACT,
    **IMAGENET,
    "image_processor_type": "ConvNextImageProcessor",
    "size": {"shortest_edge": 32},
    "crop_pct": 0.875,
    "resample": 3,
}
DEIT_PIXELS = {
    **CROP,
    **IMAGENET,
    "size": {"height": 36, "width": 36},
    "image_processor_type": "DeiTImageProcessor",
    "resample": 3,
}
BEIT_PIXELS = {**DEIT_PIXELS, **HALF, "image_processor_type": "BeitImageProcessor", "resample": 2}
DINOV3_PIXELS = {
    **EXACT,
    **IMAGENET,
    **SQUARE,
    "image_processor_type": "DINOv3ViTImageProcessorFast",
    "resample": 2,
    "do_center_crop": None,
    "crop_size": None,
    "do_pad": None,
}
NAFLEX_VISION = {**TOWER, "patch_size": 8, "num_patches": 16}

MODELS: Mapping[str, tuple[Callable[[], Any], Pixels]] = {
    "clip": (lambda: _two_towers("CLIPModel", "CLIPConfig", VISION, WORDS), CLIP_PIXELS),
    "metaclip_2": (lambda: _two_towers("MetaClip2Model", "MetaClip2Config", VISION, WORDS), CLIP_PIXELS),
    "siglip": (lambda: _two_towers("SiglipModel", "SiglipConfig", VISION, WORDS), SIGLIP_PIXELS),
    "siglip2": (lambda: _two_towers("Siglip2Model", "Siglip2Config", NAFLEX_VISION, WORDS), NAFLEX_PIXELS),
    "blip": (_blip, {**SIGLIP_PIXELS, **CLIP_STATISTICS, "image_processor_type": "BlipImageProcessor", "resample": 3}),
    "dinov2": (
        lambda: _alone("Dinov2Model", "Dinov2Config", **{k: v for k, v in VISION.items() if k != "intermediate_size"}),
        DINOV2_PIXELS,
    ),
    "dinov2_with_registers": (
        lambda: _alone(
            "Dinov2WithRegistersModel",
            "Dinov2WithRegistersConfig",
            num_register_tokens=4,
            **{k: v for k, v in VISION.items() if k != "intermediate_size"},
        ),
        DINOV2_PIXELS,
    ),
    "dinov3_vit": (
        lambda: _alone("DINOv3ViTModel", "DINOv3ViTConfig", num_register_tokens=4, **VISION),
        DINOV3_PIXELS,
    ),
    "dinov3_convnext": (lambda: _alone("DINOv3ConvNextModel", "DINOv3ConvNextConfig", **CONVNEXT), DINOV3_PIXELS),
    "vit": (lambda: _alone("ViTForImageClassification", "ViTConfig", **VISION), VIT_PIXELS),
    "deit": (lambda: _alone("DeiTForImageClassificationWithTeacher", "DeiTConfig", **VISION), DEIT_PIXELS),
    "vit_msn": (lambda: _alone("ViTMSNModel", "ViTMSNConfig", **VISION), {**VIT_PIXELS, **IMAGENET}),
    "vit_mae": (
        lambda: _alone("ViTMAEForPreTraining", "ViTMAEConfig", decoder_hidden_size=16, decoder_num_attention_heads=2,
                       decoder_num_hidden_layers=1, decoder_intermediate_size=16, **VISION),
        {**VIT_PIXELS, **IMAGENET},
    ),
    "ijepa": (lambda: _alone("IJepaModel", "IJepaConfig", **VISION), {**VIT_PIXELS, **IMAGENET}),
    "beit": (
        lambda: _alone("BeitForImageClassification", "BeitConfig", use_relative_position_bias=True, **VISION),
        BEIT_PIXELS,
    ),
    "swin": (lambda: _alone("SwinModel", "SwinConfig", **SWIN), {**VIT_PIXELS, **IMAGENET, "resample": 3}),
    "swinv2": (lambda: _alone("Swinv2Model", "Swinv2Config", **SWIN), {**VIT_PIXELS, **IMAGENET, "resample": 3}),
    "convnext": (lambda: _alone("ConvNextModel", "ConvNextConfig", **CONVNEXT), CONVNEXT_PIXELS),
    "convnextv2": (lambda: _alone("ConvNextV2Model", "ConvNextV2Config", **CONVNEXT), CONVNEXT_PIXELS),
}  # fmt: skip


def write_model(folder: Path, name: str, pixels: Pixels | None = None, seed: int = 0) -> Path:
    """Write a model's folder as ``save_pretrained`` does, with the pixels that its real repositories state."""
    make, usual = MODELS[name]
    torch.manual_seed(seed)
    with quiet_loading():
        model = make()
        _spread(model)
        model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(usual if pixels is None else pixels))
    return folder


def _spread(model: Any) -> None:
    """Redraw small initial weights, so that outputs differ by image and a fault shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
