"""DiffSim-C (paper section 3.4): AAS on the image cross-attention that IP-Adapter Plus adds to SD 1.5.

Queries are the UNet's, of image A's noisy latent with A's own image tokens injected; keys and values are projections
of the 16 image tokens. ``parity="sound"`` compares the conditional branch alone; ``"published"`` both: the
unconditional one holds the tokens of a zero image on either side, so its half of the score is always 1.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from retrieval.backbones import EXTRACTORS, Description
from retrieval.backbones.capture import capture_qkv
from retrieval.backbones.sd15 import LAYERS, StableDiffusion15
from retrieval.backbones.sd15 import load as load_sd15
from retrieval.backbones.vit import CLIP_PREPROCESSING, Preprocessing, read_preprocessing
from retrieval.backbones.weights import load_pretrained, quiet_loading, require, weights_digest, weights_folder
from retrieval.errors import ModelError
from retrieval.images import resize_and_crop
from retrieval.metrics import Features, MetricDescription, MetricSettings
from retrieval.metrics.attention import AttentionMetric, attention_features, heads_of
from retrieval.metrics.diffusion import model_settings, target_of
from retrieval.vocabulary import Role

SCALE = 0.5  # of the image tokens in the UNet
ADAPTER = "models/ip-adapter-plus_sd15.safetensors"
ENCODER = "models/image_encoder"
FILES = (ADAPTER, f"{ENCODER}/config.json", f"{ENCODER}/model.safetensors")
IP_ADAPTER = Description(
    name="ip_adapter",
    title="IP-Adapter Plus for SD 1.5 with its image encoder, CLIP ViT-H/14",
    licence="Apache-2.0",
    download_mb=2626,
    loader="",
    repo="h94/IP-Adapter",
    revision="018e402774aeeddd60609b4ecdb7e298259dc729",
)


def load(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "ImageCrossAttention":
    """Load SD 1.5 and IP-Adapter Plus; local weights of the second lie in ``ip_adapter`` beside the first.

    Raises:
        UsageError, ModelError: see :func:`retrieval.metrics.load_metric`.
    """
    chosen = model_settings("sd15", description, settings)
    base = load_sd15(EXTRACTORS["sd15"], chosen, device, offline)
    local = None if settings.weights is None else Path(settings.weights).resolve().parent / "ip_adapter"
    folder = weights_folder(IP_ADAPTER, local, FILES, offline)
    require(folder, (ADAPTER, ENCODER), "IP-Adapter Plus")
    stated = None if settings.weights is None else Path(settings.weights) / "feature_extractor"
    inject_adapter(base.network, folder / ADAPTER)
    return ImageCrossAttention(base, _load_encoder(folder, device), folder, description, settings, device, stated)


class ImageCrossAttention(AttentionMetric):
    """DiffSim-C at one layer and timestep."""

    batch_size = 1

    def __init__(
        self,
        base: StableDiffusion15,
        encoder: Any,
        folder: Path,
        description: MetricDescription,
        settings: MetricSettings,
        device: torch.device,
        stated: Path | None,
    ) -> None:
        """Take SD 1.5 with the adapter injected, and the image encoder."""
        super().__init__(settings, device)
        self._base, self._encoder, self._folder = base, encoder, folder
        self._target = target_of(description, settings)
        self._parity = settings.parity
        self.one_role = settings.noise == "shared"
        self._rules = CLIP_PREPROCESSING if stated is None else read_preprocessing(stated, CLIP_PREPROCESSING)
        base.attention(self._target.layer)  # an unknown layer is told now, not after minutes

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image], role: Role) -> Features:
        """See :class:`retrieval.metrics.Metric`; a branch axis of 1 (sound) or 2 (published)."""
        network = self._base.network
        hidden = self._hidden(images)
        resampler = network.encoder_hid_proj.image_projection_layers[0]
        tokens = resampler(hidden.flatten(0, 1))
        tokens = tokens.reshape(*hidden.shape[:2], *tokens.shape[1:])  # [images, branches, 16, width]
        noisy = self._base.noisy_latents(
            np.stack([self._base.prepare(image) for image in images]), [self._target.timestep], role
        )[self._target.timestep]
        sample, prompts = self._base.branch_inputs(noisy)
        attention = network.get_submodule(f"{LAYERS[self._target.layer]}.attentions")[-1].transformer_blocks[-1].attn2
        embeddings = [hidden.flatten(0, 1).unsqueeze(1)]
        captured = capture_qkv(
            run=lambda: network(
                sample,
                self._target.timestep,
                encoder_hidden_states=prompts,
                added_cond_kwargs={"image_embeds": embeddings},
            ),
            layers={"layer": attention},
            project=lambda module, hidden: (module.to_q(hidden), hidden, hidden),  # type: ignore[operator]
        )
        q = heads_of(captured["layer"][0], attention.heads)
        q = q.reshape(len(images), -1, *q.shape[1:])
        processor = attention.processor
        k, v = (
            to[0](tokens).unflatten(-1, (attention.heads, -1)).transpose(2, 3)
            for to in (processor.to_k_ip, processor.to_v_ip)
        )
        keep = slice(None) if self._parity == "published" else slice(-1, None)
        return attention_features(q[:, keep], k[:, keep], v[:, keep])

    def _hidden(self, images: Sequence[Image.Image]) -> Tensor:
        """Return the encoder's hidden states before its last layer, of a zero image and of each: ``[n, b, t, w]``."""
        pixels = np.stack([resize_and_crop(image, self._rules.shortest, self._rules.crop) for image in images])
        values = normalised(pixels, self._rules).to(self._encoder.device, self._encoder.dtype)
        if self._base.branches == "cond":
            both = values.unsqueeze(1)
        else:
            both = torch.stack([torch.zeros_like(values), values], dim=1)
        states: Tensor = self._encoder(both.flatten(0, 1), output_hidden_states=True).hidden_states[-2]
        grouped = states.reshape(*both.shape[:2], *states.shape[1:])
        return grouped.to(self._base.network.dtype)

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.Metric`."""
        return {
            **self._base.fingerprint(),
            "name": "diffsim-c",
            "adapter": weights_digest(self._folder, ("models", ENCODER)),
            "layer": self._target.layer,
            "timestep": self._target.timestep,
            "parity": self._parity,
        }


def normalised(pixels: Any, rules: Preprocessing) -> Tensor:
    """Return uint8 ``[images, S, S, 3]`` as float32 ``[images, 3, S, S]`` by the encoder's mean and deviation."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (rules.mean, rules.std))
    return (torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float() / 255.0 - mean) / std


def inject_adapter(network: Any, path: Path) -> None:
    """Load IP-Adapter Plus into a UNet, at the published scale.

    Raises:
        ModelError: the file is no adapter for this UNet.
    """
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
        parts: Mapping[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for name, tensor in weights.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        network._load_ip_adapter_weights([parts], low_cpu_mem_usage=False)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path} can't be loaded as IP-Adapter Plus: {str(error).strip().splitlines()[0]}") from error
    for processor in network.attn_processors.values():
        if hasattr(processor, "to_k_ip"):
            processor.scale = [SCALE]
    network.requires_grad_(False)


def _load_encoder(folder: Path, device: torch.device) -> Any:
    from transformers import CLIPVisionModelWithProjection

    with quiet_loading():
        encoder = load_pretrained(
            CLIPVisionModelWithProjection, folder / ENCODER, "the image encoder of IP-Adapter", dtype=torch.float32
        )
    return encoder.to(device)
