"""Backbones: the two protocols that every model is read through, and one table of each kind.

An :class:`AttentionExtractor` turns images into Q/K/V, an :class:`Embedder` into one vector an image. Everything
a user asks before a download (licence, size) is a field of the tables below; nothing is registered elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import UsageError
from retrieval.modes import MINI_MODES, SD15_MODES, Mode, Target
from retrieval.vocabulary import NoiseRule, Role

if TYPE_CHECKING:
    import torch

    from retrieval.aas import QKV
    from retrieval.projection import Projection
    from retrieval.settings import ModelSettings

Pixels = NDArray[np.uint8]
"""``[images, height, width, 3]``, or one image without the first axis."""


class AttentionExtractor(Protocol):
    """Images to the Q/K/V of chosen layers at chosen timesteps."""

    def prepare(self, image: Image.Image) -> Pixels:
        """Return the pixels ``[S, S, 3]`` that :meth:`extract` takes; runs in decoding threads."""

    def extract(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> "dict[Target, QKV]":
        """Return each target's tensors ``[images, branches, heads, tokens, head_dim]`` on the model's device."""

    def fingerprint(self) -> dict[str, Any]:
        """Return all that changes a tensor, as JSON values; equal fingerprints may share an index."""


@runtime_checkable
class HiddenExtractor(AttentionExtractor, Protocol):
    """An extractor whose Q/K/V are projections of a layer's input h, so that an index may keep h: a third of them."""

    def hidden(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> "dict[Target, torch.Tensor]":
        """Return each target's h ``[images, branches, tokens, width]`` on the model's device."""

    def projection(self, target: Target) -> "Projection":
        """Return what makes the target's Q/K/V of h."""

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        """Return one image's (branches, tokens, width) without computing anything."""


class Embedder(Protocol):
    """Images to L2-normalised vectors."""

    def prepare(self, image: Image.Image) -> Pixels:
        """Return the pixels ``[S, S, 3]`` that :meth:`embed` takes; runs in decoding threads."""

    def embed(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return ``[images, dim]``, every row of norm 1."""

    def fingerprint(self) -> dict[str, Any]:
        """Return all that changes a vector, as JSON values."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What there is to know of a model before it is loaded."""

    name: str
    title: str
    licence: str
    download_mb: int  # 0: travels in the package
    loader: str  # "module:function", imported when the model is first needed
    repo: str = ""
    revision: str = ""


@dataclass(frozen=True, kw_only=True)
class ExtractorDescription(Description):
    """An attention model, with the table of modes that were chosen for it and its defaults."""

    modes: Mapping[str, Mode]
    image_size: int
    noise: NoiseRule
    draft: bool = False  # decode JPEGs at a reduced scale: for models whose cost is near the decoder's
    batch_sizes: tuple[int, int] = (1, 16)  # images a batch on a CPU, on an accelerator
    working_mb: int = 0  # memory that computing an image takes beside the weights, float32, about; 0: not measured
    warnings: Mapping[str, str] = field(default_factory=dict)  # what a user of a mode must know, one line


EXTRACTORS: dict[str, ExtractorDescription] = {
    "sd15": ExtractorDescription(
        name="sd15",
        title="DiffSim-S on Stable Diffusion 1.5",
        licence="CreativeML OpenRAIL-M",
        download_mb=4270,
        loader="retrieval.backbones.sd15:load",
        repo="stable-diffusion-v1-5/stable-diffusion-v1-5",
        revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        modes=SD15_MODES,
        image_size=512,
        noise="pairwise",
        working_mb=660,
    ),
    "mini": ExtractorDescription(
        name="mini",
        title="colour and texture of 6 x 6 cells, aligned by attention; no weights",
        licence="Apache-2.0",
        download_mb=0,
        loader="retrieval.backbones.mini:load",
        modes=MINI_MODES,
        image_size=144,
        noise="shared",
        draft=True,
        batch_sizes=(16, 64),
        working_mb=4,
        warnings={"semantic": "mini matches colour, texture and layout, not meaning; use --model sd15 for meaning"},
    ),
}

EMBEDDERS: dict[str, Description] = {
    "clip": Description(
        name="clip",
        title="CLIP ViT-B/32 image embedding, 512-d",
        licence="MIT",
        download_mb=605,
        loader="retrieval.backbones.vit:load_clip",
        repo="openai/clip-vit-base-patch32",
        revision="3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
    ),
    "dinov2": Description(
        name="dinov2",
        title="DINOv2 ViT-S/14 class token, 384-d",
        licence="Apache-2.0",
        download_mb=88,
        loader="retrieval.backbones.vit:load_dinov2",
        repo="facebook/dinov2-small",
        revision="ed25f3a31f01632728cabb09d1542f84ab7b0056",
    ),
    "descriptor": Description(
        name="descriptor",
        title="Lab histogram and local binary patterns, 214-d",
        licence="Apache-2.0",
        download_mb=0,
        loader="retrieval.backbones.descriptor:load",
    ),
    "subject": Description(
        name="subject",
        title="the same of what stands out from the border, 214-d",
        licence="Apache-2.0",
        download_mb=0,
        loader="retrieval.backbones.descriptor:load",
    ),
}


def describe_extractor(name: str) -> ExtractorDescription:
    """Look an attention model up; an unknown name is a UsageError that lists the known ones."""
    if name not in EXTRACTORS:
        raise UsageError(f"unknown model '{name}'; known: auto, {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name]


def describe_embedder(name: str) -> Description:
    """Look an encoder up; an unknown name is a UsageError that lists the known ones."""
    if name not in EMBEDDERS:
        raise UsageError(f"unknown encoder '{name}'; known: {', '.join(EMBEDDERS)}, or none")
    return EMBEDDERS[name]


def load_extractor(settings: "ModelSettings", device: "torch.device", offline: bool) -> AttentionExtractor:
    """Load the attention model that ``settings`` names (not ``auto``).

    Raises:
        UsageError: an unknown model or an image size it can't take.
        ModelError: its weights are missing or incomplete.
    """
    description = describe_extractor(settings.model)
    return cast(AttentionExtractor, _loader(description)(description, settings, device, offline))


def load_embedder(name: str, folder: Path | None, device: "torch.device", offline: bool) -> Embedder:
    """Load the encoder ``name`` from ``folder``, or from the hub's cache or the hub itself.

    Raises:
        UsageError: an unknown name.
        ModelError: its weights are missing or incomplete.
    """
    description = describe_embedder(name)
    return cast(Embedder, _loader(description)(description, folder, device, offline))


def _loader(description: Description) -> Any:
    module, _, function = description.loader.partition(":")
    return getattr(import_module(module), function)
