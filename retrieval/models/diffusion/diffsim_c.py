"""DiffSim-C (paper section 3.4): AAS on the image cross-attention that IP-Adapter Plus adds to SD 1.5.

The queries come from the UNet, run on image A's noisy latent with A's own image tokens. The keys and values are
projections of an image's 16 tokens. ``parity="sound"`` compares the conditional branch alone. ``"published"`` compares
both branches, though the unconditional half of the score is always 1: both sides hold the tokens of a zero image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from retrieval.images.preprocessing import CLIP_PREPROCESSING, Preprocessing, read_preprocessing, resize_and_crop
from retrieval.models.capture import Projections, capture_qkv
from retrieval.models.descriptions import ExtractorDescription
from retrieval.models.diffusion.base import by_timestep
from retrieval.models.diffusion.latents import scalar_on_device
from retrieval.models.diffusion.sd15 import LAYERS, StableDiffusion15
from retrieval.models.diffusion.sd15 import load as load_sd15
from retrieval.models.modes import Target
from retrieval.models.normalisation import normalise
from retrieval.models.protocols import Pixels
from retrieval.models.registry import EXTRACTORS, IP_ADAPTER
from retrieval.models.repositories import ADAPTER, ADAPTER_ENCODER
from retrieval.models.weights.finding import Weights, find_weights
from retrieval.models.weights.loading import load_pretrained, quiet_loading
from retrieval.models.weights.parts import FoundPart
from retrieval.models.weights.reading import model_errors, read_tensors
from retrieval.scoring.aas import QKV
from retrieval.settings import ModelSettings
from retrieval.types import Role

SCALE = 0.5  # weight of the image tokens in the UNet


def load(
    description: ExtractorDescription, settings: ModelSettings, device: torch.device, offline: bool
) -> "ImageCrossAttention":
    """Load SD 1.5 and IP-Adapter Plus; beside a local folder of SD 1.5, the adapter lies in ``ip_adapter``.

    Raises:
        UsageError: an image size that SD 1.5 can't take.
        ModelError: weights are missing or incomplete.
    """
    published = settings.parity == "published"
    base = load_sd15(EXTRACTORS["sd15"], settings if published else replace(settings, branches="cond"), device, offline)
    local = None if settings.weights is None else Path(settings.weights).resolve().parent / "ip_adapter"
    weights = find_weights(IP_ADAPTER, local, offline)
    rules = CLIP_PREPROCESSING
    if settings.weights is not None:
        rules = read_preprocessing(Path(settings.weights) / "feature_extractor", rules)
    inject_adapter(base.network, weights[ADAPTER].weights[0])
    return ImageCrossAttention(base, _load_encoder(weights[ADAPTER_ENCODER], device), weights, rules)


class ImageCrossAttention:
    """An AttentionExtractor; keys and values have 16 tokens, in one branch (sound) or two (published)."""

    def __init__(self, base: StableDiffusion15, encoder: Any, weights: Weights, rules: Preprocessing) -> None:
        """Take SD 1.5 with the adapter in it, the image encoder, the files of both and the encoder's pixel rules."""
        self._base, self._encoder, self._weights, self._rules = base, encoder, weights, rules

    def with_prompts(self, prompts: Sequence[str]) -> "dict[str, ImageCrossAttention]":
        """See :class:`retrieval.models.protocols.Prompted`."""
        bases = self._base.with_prompts(prompts)
        return {
            prompt: ImageCrossAttention(base, self._encoder, self._weights, self._rules)
            for prompt, base in bases.items()
        }

    def prepare(self, image: Image.Image) -> Pixels:
        """Return SD 1.5's square above the encoder's crop, ``[S + C, max(S, C), 3]``; the rest is black."""
        square, crop = self._base.prepare(image), resize_and_crop(image, self._rules.shortest, self._rules.crop)
        both = np.zeros((len(square) + len(crop), max(len(square), len(crop)), 3), np.uint8)
        both[: len(square), : len(square)], both[len(square) :, : len(crop)] = square, crop
        return both

    @torch.inference_mode()
    def extract(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, QKV]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`; each timestep is one UNet pass, cut short."""
        side, crop = pixels.shape[1] - self._rules.crop, self._rules.crop
        modules = {target.layer: self._cross_attention(target.layer) for target in targets}
        hidden = self._hidden(pixels[:, side:, :crop])
        tokens = self._base.network.encoder_hid_proj.image_projection_layers[0](hidden.flatten(0, 1))
        tokens = tokens.reshape(*hidden.shape[:2], *tokens.shape[1:])  # [images, branches, 16, width]
        noisy = self._base.noisy_latents(pixels[:, :side, :side], [target.timestep for target in targets], role)
        found: dict[Target, QKV] = {}
        for timestep, group in by_timestep(targets):
            queries = self._queries(noisy[timestep], timestep, hidden, {t.layer: modules[t.layer] for t in group})
            found |= {t: QKV(queries[t.layer], *_keys_and_values(modules[t.layer], tokens)) for t in group}
        return found

    def _cross_attention(self, layer: str) -> Any:
        self._base.attention(layer)  # raises for an unknown layer
        return self._base.network.get_submodule(f"{LAYERS[layer]}.attentions")[-1].transformer_blocks[-1].attn2

    def _queries(
        self, noisy: Tensor, timestep: int, hidden: Tensor, modules: Mapping[str, nn.Module]
    ) -> dict[str, Tensor]:
        """Run the UNet with each image's own tokens; ``[images, branches, heads, tokens, head_dim]`` by layer."""
        sample, prompts = self._base.branch_inputs(noisy)
        step = scalar_on_device(timestep, noisy.device)
        captured = capture_qkv(
            run=lambda: self._base.network(
                sample,
                step,
                encoder_hidden_states=prompts,
                added_cond_kwargs={"image_embeds": [hidden.flatten(0, 1).unsqueeze(1)]},
            ),
            layers=modules,
            project=_project_query,
        )
        return {layer: q.reshape(*hidden.shape[:2], *q.shape[1:]) for layer, (q, _, _) in captured.items()}

    def _hidden(self, crops: Pixels) -> Tensor:
        """Return the encoder's hidden states before its last layer ``[images, branches, tokens, width]``.

        The unconditional branch encodes an image of zeros, as published.
        """
        values = normalise(crops, self._rules, self._encoder.device).to(self._encoder.dtype)
        both = [values] if self._base.branches == "cond" else [torch.zeros_like(values), values]
        stacked = torch.stack(both, dim=1)
        states: Tensor = self._encoder(stacked.flatten(0, 1), output_hidden_states=True).hidden_states[-2]
        return states.reshape(*stacked.shape[:2], *states.shape[1:]).to(self._base.network.dtype)

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.AttentionExtractor`."""
        return {
            **self._base.fingerprint(),
            "name": "diffsim-c",
            "adapter": self._weights.digest(),
            "encoder_pixels": {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self._rules).items()},
        }


def inject_adapter(network: Any, path: Path) -> None:
    """Load IP-Adapter Plus into a UNet, at the published scale.

    Raises:
        ModelError: the file does not hold an adapter for this UNet.
    """
    parts: Mapping[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    failure = f"{path} can't be loaded as IP-Adapter Plus"
    tensors = read_tensors(path, failure)
    with model_errors(failure):
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        with quiet_loading():
            network._load_ip_adapter_weights([parts], low_cpu_mem_usage=False)
    for processor in network.attn_processors.values():
        if hasattr(processor, "to_k_ip"):
            processor.scale = [SCALE]
    network.requires_grad_(False)


def _project_query(attention: Any, hidden: Tensor) -> Projections:
    q: Tensor = attention.to_q(hidden).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
    return q, q, q  # only Q is used: keys and values come from the image tokens


def _keys_and_values(attention: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Project the image tokens: each ``[images, branches, heads, 16, head_dim]``."""
    k, v = (
        to[0](tokens).unflatten(-1, (attention.heads, -1)).transpose(2, 3)
        for to in (attention.processor.to_k_ip, attention.processor.to_v_ip)
    )
    return k, v


def _load_encoder(found: FoundPart, device: torch.device) -> Any:
    from transformers import CLIPVisionModelWithProjection

    encoder = load_pretrained(
        CLIPVisionModelWithProjection, found, "the image encoder of IP-Adapter", dtype=torch.float32
    )
    return encoder.to(device)
