"""The tables of all models, and the functions that load them by name.

An extractor turns an image into Q/K/V, an embedder into one vector; :mod:`retrieval.models.protocols` defines both.
The tables answer questions before a download, such as licence and size. Importing this module is cheap: a model's own
module, and torch, are imported when the model is loaded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from retrieval.errors import UsageError
from retrieval.models import repositories
from retrieval.models.modes import (
    CELLS_MODES,
    CLIP_MODES,
    DEFAULT_MODES,
    DIFFSIM_C_MODES,
    DINOV2_MODES,
    DIT_MODES,
    LAST_STEP,
    SD15_MODES,
    SDXL_LAST_STEP,
    SDXL_MODES,
    Mode,
)
from retrieval.models.repositories import Repository
from retrieval.models.weights.parts import Part
from retrieval.types import NoiseRule

if TYPE_CHECKING:
    import torch

    from retrieval.models.protocols import AttentionExtractor, Embedder
    from retrieval.settings import ModelSettings


@dataclass(frozen=True, kw_only=True)
class Description:
    """The facts about a model that are known before it is loaded."""

    name: str
    title: str
    licence: str
    download_mb: int  # 0: there is nothing to download
    loader: str  # "module:function", imported when the model is loaded
    source: Repository | None = None  # None: it is in the package, or another package fetches it
    beside: tuple["Description", ...] = ()  # other repositories that the model reads too; download_mb counts them
    local: str = ""  # of such a repository: its place in relation to the model's folder, where that is a local one

    @property
    def repo(self) -> str:
        """The name of the repository on the hub, or an empty text."""
        return self.source.repo if self.source else ""

    @property
    def revision(self) -> str:
        """The commit of the repository, or an empty text."""
        return self.source.revision if self.source else ""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the repository that are read."""
        return self.source.parts if self.source else ()


@dataclass(frozen=True, kw_only=True)
class ExtractorDescription(Description):
    """An attention model, with its modes and defaults."""

    modes: Mapping[str, Mode]
    image_size: int  # pixels a side; 0: the size that the weights state
    noise: NoiseRule
    default_modes: tuple[str, ...] = DEFAULT_MODES
    codec: str = "qkv-float16"  # a new index's; a hidden one is smaller and projects every candidate of a search again
    last_step: int = LAST_STEP  # the network's timestep is last_step - denoising step
    draft: bool = False  # decode JPEGs at a reduced scale, because decoding costs as much as the model
    batch_sizes: tuple[int, int] = (1, 16)  # images in a batch on a CPU, and on a GPU
    working_mb: int = 0  # approximate memory for one image beside the weights, in float32; 0: not measured
    float32_vae: bool = False  # the VAE, which takes most of that memory, always runs in float32
    warnings: Mapping[str, str] = field(default_factory=dict)  # by mode, one line that its users must know
    unused: tuple[str, ...] = ()  # fields of ModelSettings that do not affect the model


WORKING_MB = 660  # the VAE's encoder at 512 px: the largest part of every diffusion model here
_OF_DIFFUSION = ("branches", "noise", "seed", "prompt", "dtype")  # settings that only diffusion models have

_SD15 = ExtractorDescription(
    name="sd15",
    title="DiffSim-S on Stable Diffusion 1.5",
    licence="CreativeML OpenRAIL-M",
    download_mb=4267,
    loader="retrieval.models.diffusion.sd15:load",
    source=repositories.SD15,
    modes=SD15_MODES,
    image_size=512,
    noise="pairwise",
    working_mb=WORKING_MB,
)
_CLIP = Description(
    name="clip",
    title="CLIP ViT-B/32 image embedding, 512-d",
    licence="MIT",
    download_mb=605,
    loader="retrieval.models.vit.pooled:load_clip",
    source=repositories.CLIP,
)
_DINOV2 = Description(
    name="dinov2",
    title="DINOv2 ViT-S/14 class token, 384-d",
    licence="Apache-2.0",
    download_mb=88,
    loader="retrieval.models.vit.pooled:load_dinov2",
    source=repositories.DINOV2_SMALL,
)
IP_ADAPTER = Description(
    name="ip-adapter",
    title="IP-Adapter Plus for SD 1.5 with its image encoder, CLIP ViT-H/14",
    licence="Apache-2.0",
    download_mb=2627,
    loader="",
    source=repositories.IP_ADAPTER,
    local="../ip_adapter",
)
VAE = Description(
    name="dit-vae",
    title="the VAE of DiffSim's DiT",
    licence="MIT",
    download_mb=335,
    loader="",
    source=repositories.DIT_VAE,
    local="vae",
)


def _vision_transformer(name: str, title: str, of: Description, modes: Mapping[str, Mode]) -> ExtractorDescription:
    # There is no style mode: the paper reports 71 and 78 % for the last layer and does not name the layer of its 95 %.
    return ExtractorDescription(
        name=name,
        title=title,
        licence=of.licence,
        download_mb=of.download_mb,
        loader="retrieval.models.vit.attention:load",
        source=of.source,
        modes=modes,
        image_size=0,
        noise="shared",
        default_modes=("semantic",),
        batch_sizes=(16, 64),
        unused=_OF_DIFFUSION,
    )


def _dit(side: int, revision: str) -> ExtractorDescription:
    return ExtractorDescription(
        name=f"dit-{side}",
        title=f"DiffSim on DiT-XL/2, {side} px",
        licence="CC-BY-NC-4.0",
        download_mb=3334,
        loader="retrieval.models.diffusion.dit:load",
        source=repositories.dit(side, revision),
        beside=(VAE,),
        modes=DIT_MODES,
        image_size=side,
        noise="pairwise",
        batch_sizes=(1, 8),
        working_mb=WORKING_MB * side**2 // 512**2,
        float32_vae=True,
    )


EXTRACTORS: dict[str, ExtractorDescription] = {
    "sd15": _SD15,
    "cells": ExtractorDescription(
        name="cells",
        title="colour and texture of 6 x 6 cells, aligned by attention; no weights",
        licence="Apache-2.0",
        download_mb=0,
        loader="retrieval.models.cells.attention:load",
        modes=CELLS_MODES,
        image_size=144,
        noise="shared",
        codec="hidden-float16",  # one map serves all modes, and the order of neighbours stays
        draft=True,
        batch_sizes=(16, 64),
        working_mb=4,
        unused=_OF_DIFFUSION,
        warnings={"semantic": "cells matches colour, texture and layout, not meaning; the model sd15 matches meaning"},
    ),
    "clip-aas": _vision_transformer("clip-aas", "AAS on CLIP ViT-B/32", _CLIP, CLIP_MODES),
    "dinov2-aas": _vision_transformer("dinov2-aas", "AAS on DINOv2 ViT-S/14", _DINOV2, DINOV2_MODES),
    "diffsim-c": replace(
        _SD15,
        name="diffsim-c",
        title="DiffSim-C: IP-Adapter Plus on SD 1.5",
        licence="CreativeML OpenRAIL-M, Apache-2.0",
        download_mb=6893,
        loader="retrieval.models.diffusion.diffsim_c:load",
        beside=(IP_ADAPTER,),
        modes=DIFFSIM_C_MODES,
        batch_sizes=(1, 8),
    ),
    "diffsim-xl": ExtractorDescription(
        name="diffsim-xl",
        title="DiffSim-S on SD-XL",
        licence="CreativeML OpenRAIL++-M",
        download_mb=6941,
        loader="retrieval.models.diffusion.sdxl:load",
        source=repositories.SDXL,
        modes=SDXL_MODES,
        last_step=SDXL_LAST_STEP,
        image_size=512,
        noise="pairwise",
        batch_sizes=(1, 8),
        working_mb=WORKING_MB,
        float32_vae=True,
    ),
    "dit-256": _dit(256, "eab87f77abd5aef071a632f08807fbaab0b704d0"),
    "dit-512": _dit(512, "101a3d462b22d64c4afdd4d0c8c59a2c0b961b99"),
}

EMBEDDERS: dict[str, Description] = {
    "clip": _CLIP,
    "dinov2": _DINOV2,
    "descriptor": Description(
        name="descriptor",
        title="Lab histogram and local binary patterns, 214-d",
        licence="Apache-2.0",
        download_mb=0,
        loader="retrieval.models.cells.pooled:load",
    ),
    "subject": Description(
        name="subject",
        title="the same for the cells that stand out from the border, 214-d",
        licence="Apache-2.0",
        download_mb=0,
        loader="retrieval.models.cells.pooled:load",
    ),
}


def describe_extractor(name: str) -> ExtractorDescription:
    """Return the description of an attention model; an unknown name is a UsageError that lists the known ones."""
    if name not in EXTRACTORS:
        raise UsageError(f"unknown model '{name}'; known: auto, {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name]


def describe_embedder(name: str) -> Description:
    """Return the description of an encoder; an unknown name is a UsageError that lists the known ones."""
    if name not in EMBEDDERS:
        raise UsageError(f"unknown encoder '{name}'; known: {', '.join(EMBEDDERS)}, or none")
    return EMBEDDERS[name]


def choose_modes(description: ExtractorDescription, names: Iterable[str]) -> tuple[Mode, ...]:
    """Return a model's modes called ``names``, each once; an unknown name, or none, is a UsageError."""
    wanted = tuple(dict.fromkeys(names))
    if not wanted:
        raise UsageError(f"no mode was named; this model has: {', '.join(description.modes)}")
    for name in wanted:
        if name not in description.modes:
            raise unknown_mode(name, "this model", description.modes)
    return tuple(description.modes[name] for name in wanted)


def unknown_mode(name: str, what: str, known: Iterable[str]) -> UsageError:
    """Return the error that lists the modes of ``what``, and the models that do have the mode ``name``."""
    able = ", ".join(model.name for model in EXTRACTORS.values() if name in model.modes)
    message = f"unknown mode '{name}'; {what} has: {', '.join(known)}"
    return UsageError(f"{message}; models with it: {able}" if able else message)


def default_encoders(name: str) -> list[Description]:
    """Return the encoders that the default modes of the model ``name`` use."""
    description = describe_extractor(name)
    modes = [description.modes[mode] for mode in description.default_modes]
    return [EMBEDDERS[encoder] for encoder in dict.fromkeys(encoder for mode in modes for encoder in mode.encoders)]


def load_extractor(settings: "ModelSettings", device: "torch.device", offline: bool) -> "AttentionExtractor":
    """Load the attention model that ``settings`` names (not ``auto``).

    Raises:
        UsageError: an unknown model, or an image size that it can't take.
        ModelError: the weights are missing or incomplete.
    """
    description = describe_extractor(settings.model)
    return cast("AttentionExtractor", _loader(description)(description, settings, device, offline))


def load_embedder(name: str, folder: Path | None, device: "torch.device", offline: bool) -> "Embedder":
    """Load the encoder ``name`` from ``folder``, or from the hub's cache or the hub; see :func:`load_extractor`."""
    description = describe_embedder(name)
    return cast("Embedder", _loader(description)(description, folder, device, offline))


def _loader(description: Description) -> Any:
    module, _, function = description.loader.partition(":")
    return getattr(import_module(module), function)
