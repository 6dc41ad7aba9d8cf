"""The table of all metrics, and the function that loads them by name.

A metric encodes each image once and scores pairs of the features that it kept. Importing this module is cheap: a
metric's own module, and torch, are imported when the metric is loaded.
"""

from dataclasses import dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from retrieval.errors import UsageError
from retrieval.metrics.base import Metric, MetricSettings
from retrieval.models.descriptions import Description
from retrieval.models.references import ATTENTION, POOLED, parse_reference
from retrieval.models.registry import EXTRACTORS, describe_embedder, describe_extractor
from retrieval.models.repositories import DINOV2_BASE
from retrieval.models.weights.check import ALONE, needed_by

if TYPE_CHECKING:
    import torch


AAS = "retrieval.metrics.aas:load"  # the loader of all metrics that an index can use
WITHOUT = "retrieval.metrics.ablations:load"
VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"


@dataclass(frozen=True, kw_only=True)
class MetricDescription(Description):
    """The facts about a metric that are known before it is loaded; licence and size are those of its weights."""

    needs: str = ""  # a package beyond the project's own
    layer: str = ""  # the default; empty: the metric has no layers
    denoising_step: int = 0  # the default; 0: the metric adds no noise
    image_size: int = 0  # pixels a side; 0: the model's own
    published_as: str = ""  # its row in the paper's tables
    members: tuple[str, ...] = ()  # the metrics of an ensemble
    extractor: str = ""  # the model in retrieval.models.registry.EXTRACTORS whose tensors it reads
    mode: str = ""  # the mode of that model whose target is the default


def _plain(name: str, title: str, licence: str, download_mb: int, loader: str, **more: Any) -> MetricDescription:
    return MetricDescription(
        name=name,
        title=title,
        licence=licence,
        download_mb=download_mb,
        loader=f"retrieval.metrics.{loader}",
        **more,
    )


def _pooled(encoder: str, published_as: str = "") -> MetricDescription:
    """Return the metric that compares an encoder's vectors."""
    facts = {key: value for key, value in vars(describe_embedder(encoder)).items() if key != "loader"}
    return MetricDescription(**facts, loader="retrieval.metrics.pooled:load_embedding", published_as=published_as)


def _reading(
    extractor: str, mode: str, name: str, title: str = "", loader: str = AAS, **more: Any
) -> MetricDescription:
    """Return a metric that reads a model's tensors, by default with the target of one of its modes."""
    model = describe_extractor(extractor)
    target = model.modes[mode].target
    return MetricDescription(
        name=name,
        title=title or model.title,
        licence=model.licence,
        download_mb=model.download_mb,
        loader=loader,
        source=model.source,
        beside=model.beside,
        layer=target.layer,
        denoising_step=target.denoising_step if target.timestep else 0,
        image_size=model.image_size,
        extractor=extractor,
        mode=mode,
        **more,
    )


_ENTRIES = (
    _reading("sd15", "style", "diffsim-s", published_as="DiffSim-S SD1.5"),
    _reading("mini", "style", "mini", "the embedded network in mode style"),
    _reading("mini", "instance", "mini-instance", "the embedded network in mode instance"),
    _reading("mini", "semantic", "mini-semantic", "the embedded network in mode semantic"),
    _reading("mini", "lowlevel", "mini-lowlevel", "the embedded network in mode lowlevel"),
    _reading("cells", "style", "cells", "colour and texture of cells in mode style"),
    _reading("cells", "instance", "cells-instance", "colour and texture of cells in mode instance"),
    _reading("cells", "semantic", "cells-semantic", "colour and texture of cells in mode semantic"),
    _reading("clip-aas", "semantic", "clip-aas", published_as="CLIP AAS"),
    _reading("dinov2-aas", "semantic", "dinov2-aas", published_as="DINOv2 AAS"),
    _pooled("clip", "CLIP"),
    _pooled("dinov2", "DINOv2"),
    _reading("clip-aas", "semantic", "clip-feats", "CLIP layer output without AAS", f"{WITHOUT}_clip"),
    _reading("dinov2-aas", "semantic", "dinov2-feats", "DINOv2 attention output without AAS", f"{WITHOUT}_dinov2"),
    _reading("sd15", "style", "diffusion-feats", "SD 1.5 attention output without AAS", f"{WITHOUT}_diffusion"),
    _reading("diffsim-c", "instance", "diffsim-c", published_as="DiffSim-C SD1.5"),
    _reading("diffsim-xl", "style", "diffsim-xl", published_as="DiffSim-S SD-XL"),
    _reading("dit-256", "style", "dit-256", published_as="DiT-XL/2 256"),
    _reading("dit-512", "style", "dit-512", published_as="DiT-XL/2 512"),
    _plain("rgb-hist", "RGB histogram, 8 bins a channel", "Apache-2.0", 0, "histograms:load_rgb_histogram"),
    _plain("lab-hist", "Lab histogram, 5 x 6 x 6 bins", "Apache-2.0", 0, "histograms:load_lab_histogram"),
    _plain("ssim", "structural similarity of luma at 128 px", "Apache-2.0", 0, "ssim:load", image_size=128),
    _plain("clip-aas-random", "AAS on CLIP ViT-B/32 with RANDOM weights", "Apache-2.0", 0,
           "random_weights:load_clip"),
    _plain("dinov2-aas-random", "AAS on DINOv2 ViT-S/14 with RANDOM weights", "Apache-2.0", 0,
           "random_weights:load_dinov2"),
    _plain("lpips", "LPIPS, VGG network", "BSD-2-Clause", 553, "external:load_lpips", image_size=512,
           needs="lpips", published_as="LPIPS"),
    _plain("dreamsim", "DreamSim, ensemble", "MIT", 1604, "external:load_dreamsim", needs="dreamsim"),
    _plain("gram", "VGG-19 Gram matrix of conv5_1", "BSD-3-Clause", 575, "gram:load", published_as="Gram"),
    _plain("ffa", "foreground feature averaging, DINOv2 ViT-B/14", "Apache-2.0", 346, "ffa:load",
           source=DINOV2_BASE, needs="rembg", published_as="FFA"),
    _plain("ensemble", "majority vote of CLIP, DINOv2 and DiffSim-S", "see its members", 4960, "ensemble:load",
           published_as="Ensemble", members=("clip", "dinov2", "diffsim-s")),
)  # fmt: skip

METRICS: dict[str, MetricDescription] = {entry.name: entry for entry in _ENTRIES}


def describe_metric(name: str) -> MetricDescription:
    """Return the description of a metric; an unknown name is a UsageError that lists the known ones."""
    if name in METRICS:
        return METRICS[name]
    reference = parse_reference(name)
    if reference is None:
        known = ", ".join(METRICS)
        raise UsageError(f"unknown metric '{name}'; known: {known}, {POOLED}OWNER/NAME, {ATTENTION}OWNER/NAME")
    return _pooled(name) if reference.prefix == POOLED else _reading(name, "semantic", name)


def indexed_by(name: str) -> str:
    """Return the model whose index gives the scores of the metric ``name``.

    Raises:
        UsageError: an unknown metric, or one that compares no attention; the message lists the usable ones.
    """
    entry = describe_metric(name)
    if entry.loader != AAS:
        able = ", ".join(other.name for other in METRICS.values() if other.loader == AAS)
        raise UsageError(f"metric '{name}' can't be indexed, because it compares no attention; these can: {able}")
    return entry.extractor


def weights_of(name: str) -> list[tuple[Description, str]]:
    """Return everything that a model, an encoder or a metric needs from the hub, with its place beside a local folder.

    Args:
        name: a name of :func:`retrieval.models.weights.check.needed_by`, or a metric; a name of both means the model.

    Raises:
        UsageError: an unknown name, or a metric whose weights are not on the hub.
    """
    if name in EXTRACTORS or name in ALONE or parse_reference(name) is not None:
        return needed_by(name)
    if name not in METRICS:
        raise UsageError(f"unknown model '{name}'; known: {', '.join(dict.fromkeys([*EXTRACTORS, *ALONE, *METRICS]))}")
    metric = METRICS[name]
    if metric.members:
        members = [needed for member in metric.members for needed in weights_of(member)]
        return [(each, f"../{each.name}") for each, _ in members]
    if metric.download_mb and metric.source is None:
        if not metric.needs:
            raise UsageError(f"the weights of {name} are not on the hub", advice="name-vgg-folder", url=VGG19_URL)
        raise UsageError(f"the weights of {name} are not on the hub: the package {metric.needs} downloads them")
    return [(each, each.local) for each in (metric, *metric.beside) if each.source is not None]


def unused_settings(name: str, settings: MetricSettings) -> set[str]:
    """Return the fields of ``settings`` that differ from their defaults and do not affect the metric ``name``."""
    entry = describe_metric(name)
    plain = MetricSettings()
    chosen = {each.name for each in fields(plain) if getattr(settings, each.name) != getattr(plain, each.name)}
    if entry.members:
        return set.intersection(*(unused_settings(member, settings) for member in entry.members))
    if not entry.extractor:
        return chosen & {"layer", "denoising_step", "branches", "noise", "prompt"}
    unused = set(describe_extractor(entry.extractor).unused)
    return chosen & (unused | ({"denoising_step"} if not entry.denoising_step and "layer" not in chosen else set()))


def chosen_model(model: str | None, metric: str | None) -> str | None:
    """Return the model that a name, or a metric's name, asks for; both at once are a UsageError."""
    if model is not None and metric is not None:
        raise UsageError("a model and a metric both name the model of an index", advice="choose-model-once")
    return model if metric is None else indexed_by(metric)


def load_metric(
    name: str, settings: MetricSettings | None = None, device: "torch.device | str" = "cpu", offline: bool = False
) -> Metric:
    """Load the metric ``name``.

    Raises:
        UsageError: an unknown name, layer or size.
        ModelError: weights are missing or incomplete.
        DependencyError: a required package is not installed.
    """
    import torch

    description = describe_metric(name)
    module, _, function = description.loader.partition(":")
    load = getattr(import_module(module), function)
    return cast(Metric, load(description, settings or MetricSettings(), torch.device(device), offline))
