"""The tables of all models, and the functions that load them by name.

An extractor turns an image into Q/K/V, an embedder into one vector; :mod:`retrieval.models.protocols` defines both.
The tables answer questions before a download, such as licence and size. Importing this module is cheap: a model's own
module, and torch, are imported when the model is loaded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from retrieval.errors import UsageError
from retrieval.models import repositories
from retrieval.models.descriptions import OF_DIFFUSION, Description, ExtractorDescription
from retrieval.models.encoders import CLIP, DINOV2, EMBEDDERS, at_commit, embedder_of, extractor_of
from retrieval.models.modes import (
    CELLS_MODES,
    CLIP_MODES,
    DIFFSIM_C_MODES,
    DINOV2_MODES,
    DIT_MODES,
    MINI_MODES,
    SD15_MODES,
    SDXL_LAST_STEP,
    SDXL_MODES,
    Mode,
)
from retrieval.models.references import ATTENTION, POOLED, is_commit, parse_reference

if TYPE_CHECKING:
    import torch

    from retrieval.models.protocols import AttentionExtractor, Embedder
    from retrieval.settings import ModelSettings


WORKING_MB = 660  # the VAE's encoder at 512 px: the largest part of every diffusion model here

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
        unused=OF_DIFFUSION,
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
    "mini": ExtractorDescription(
        name="mini",
        title="EfficientNet-Lite0, aligned by attention; with colour and texture of cells",
        licence="Apache-2.0",
        download_mb=0,
        loader="retrieval.models.mini.attention:load",
        modes=MINI_MODES,
        image_size=224,
        noise="shared",
        default_modes=tuple(MINI_MODES),
        codec="hidden-float16",  # two maps serve four modes
        draft=1.5,  # photographs of 1 MP decode at half their scale
        batch_sizes=(4, 64),
        working_mb=24,
        unused=OF_DIFFUSION,
    ),
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
        draft=2.0,
        batch_sizes=(16, 64),
        working_mb=4,
        unused=OF_DIFFUSION,
        warnings={"semantic": "cells matches colour, texture and layout, not meaning; mini and sd15 match meaning"},
    ),
    "clip-aas": _vision_transformer("clip-aas", "AAS on CLIP ViT-B/32", CLIP, CLIP_MODES),
    "dinov2-aas": _vision_transformer("dinov2-aas", "AAS on DINOv2 ViT-S/14", DINOV2, DINOV2_MODES),
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


def describe_extractor(name: str) -> ExtractorDescription:
    """Return the description of an attention model; an unknown name is a UsageError that lists the known ones."""
    if name in EXTRACTORS:
        return EXTRACTORS[name]
    reference = parse_reference(name)
    if reference is None or reference.prefix != ATTENTION:
        raise UsageError(f"unknown model '{name}'; known: auto, {', '.join(EXTRACTORS)}, {ATTENTION}OWNER/NAME")
    return extractor_of(reference)


def describe_embedder(name: str) -> Description:
    """Return the description of an encoder; an unknown name is a UsageError that lists the known ones."""
    if name in EMBEDDERS:
        return EMBEDDERS[name]
    reference = parse_reference(name)
    if reference is not None and reference.prefix == POOLED:
        return embedder_of(reference)
    named, _, commit = name.partition("@")
    if named in EMBEDDERS and EMBEDDERS[named].source is not None and not is_commit(EMBEDDERS[named].revision):
        return at_commit(EMBEDDERS[named], commit)
    raise UsageError(f"unknown encoder '{name}'; known: {', '.join(EMBEDDERS)}, {POOLED}OWNER/NAME, or none")


def choose_modes(description: ExtractorDescription, names: Iterable[str]) -> tuple[Mode, ...]:
    """Return a model's modes called ``names``, each once; an unknown name, or none, is a UsageError."""
    wanted = tuple(dict.fromkeys(names))
    if not wanted:
        raise UsageError(f"no mode was named; this model has: {', '.join(description.modes)}")
    for name in wanted:
        if name not in description.modes:
            raise unknown_mode(name, "this model", description.modes)
    return tuple(description.modes[name] for name in wanted)


def known_modes() -> frozenset[str]:
    """Return the names of the modes of all models."""
    return frozenset(mode for model in EXTRACTORS.values() for mode in model.modes)


def unknown_mode(name: str, what: str, known: Iterable[str]) -> UsageError:
    """Return the error that lists the modes of ``what``, and the models that do have the mode ``name``."""
    able = ", ".join(model.name for model in EXTRACTORS.values() if name in model.modes)
    message = f"unknown mode '{name}'; {what} has: {', '.join(known)}"
    return UsageError(f"{message}; models with it: {able}" if able else message)


def default_encoders(name: str) -> list[Description]:
    """Return the encoders that the default modes of the model ``name`` use."""
    description = describe_extractor(name)
    modes = [description.modes[mode] for mode in description.default_modes]
    names = dict.fromkeys(encoder for mode in modes for encoder in mode.encoders)
    return [describe_embedder(encoder) for encoder in names]


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
