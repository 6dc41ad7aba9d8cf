"""AAS on real architectures whose weights are random: what structure and preprocessing alone give.

An honest floor for the trained models, and a way to run their code at its real size where no weights are at hand.
"""

from typing import Any

import torch

from retrieval.images.preprocessing import CLIP_PREPROCESSING, DINOV2_PREPROCESSING
from retrieval.metrics.aas import ExtractorMetric, model_settings
from retrieval.metrics.base import MetricSettings
from retrieval.metrics.registry import MetricDescription
from retrieval.models.modes import LAST, Target
from retrieval.models.vit.attention import Family, around
from retrieval.models.vit.pooled import ViTEmbedder


def load_clip(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> ExtractorMetric:
    """Make CLIP ViT-B/32 from ``settings.seed``."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return _metric("clip", CLIPVisionModelWithProjection, CLIPVisionConfig(), settings, device)


def load_dinov2(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> ExtractorMetric:
    """Make DINOv2 ViT-S/14 from ``settings.seed``."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14)
    return _metric("dinov2", Dinov2Model, config, settings, device)


class RandomEmbedder(ViTEmbedder):
    """A vision transformer that nobody trained; its seed stands for its weights."""

    def __init__(self, seed: int, **parts: Any) -> None:
        """Take the seed that the weights came from, and what a ViTEmbedder takes."""
        super().__init__(**parts)
        self._seed = seed

    def _weights(self) -> str:
        return f"random, seed {self._seed}"


def _metric(family: Family, kind: Any, config: Any, settings: MetricSettings, device: torch.device) -> ExtractorMetric:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = kind(config).eval().requires_grad_(False)
    embedder = RandomEmbedder(
        settings.seed,
        name=f"{family}-random",
        folder=None,
        model=model.to(device),
        preprocessing=CLIP_PREPROCESSING if family == "clip" else DINOV2_PREPROCESSING,
        pool=lambda output: output.last_hidden_state[:, 0],
    )
    extractor = around(embedder, family, model_settings(f"{family}-aas", settings))
    target = Target(settings.layer or LAST, 0)
    return ExtractorMetric(extractor, target, settings, device, shared_noise=True, batch_size=16)
