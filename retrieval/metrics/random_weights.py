"""AAS on real architectures with random weights: the score that structure and preprocessing alone give.

It is a floor for the trained models, and it runs their code at real size without a download.
"""

from typing import Any

import torch

from retrieval.images.preprocessing import CLIP_PREPROCESSING, DINOV2_PREPROCESSING
from retrieval.metrics.aas import ExtractorMetric, model_settings
from retrieval.metrics.base import MetricSettings
from retrieval.metrics.registry import MetricDescription
from retrieval.models.modes import LAST, Target
from retrieval.models.vit.attention import Family, around
from retrieval.models.vit.pooled import ViTEmbedder, class_token


def load_clip(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> ExtractorMetric:
    """Return AAS on CLIP ViT-B/32, initialised from ``settings.seed``."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return _metric("clip", CLIPVisionModelWithProjection, CLIPVisionConfig(), settings, device)


def load_dinov2(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> ExtractorMetric:
    """Return AAS on DINOv2 ViT-S/14, initialised from ``settings.seed``."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14)
    return _metric("dinov2", Dinov2Model, config, settings, device)


def _metric(family: Family, kind: Any, config: Any, settings: MetricSettings, device: torch.device) -> ExtractorMetric:
    with torch.random.fork_rng(devices=[]):  # transformers initialises from torch's global generator
        torch.manual_seed(settings.seed)
        model = kind(config).eval().requires_grad_(False)
    embedder = ViTEmbedder(
        name=f"{family}-random",
        model=model.to(device),
        preprocessing=CLIP_PREPROCESSING if family == "clip" else DINOV2_PREPROCESSING,
        pool=class_token,
        identify_weights=lambda: f"random, seed {settings.seed}",
    )
    extractor = around(embedder, family, model_settings(f"{family}-aas", settings))
    target = Target(settings.layer or LAST, 0)
    return ExtractorMetric(extractor, target, settings, device, shared_noise=True, batch_size=16)
