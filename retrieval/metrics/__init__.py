"""Metrics: one interface over everything that the paper compares, and the one table of them.

A metric encodes each image once and scores pairs from what it kept. Importing this module costs nothing: a
metric's own module, and torch, are imported when it is loaded.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, get_args

from retrieval.errors import UsageError
from retrieval.modes import MINI_MODES
from retrieval.settings import PUBLISHED_PROMPT, PUBLISHED_SEED
from retrieval.vocabulary import Branches, Directions, DtypeName, NoiseRule, Role, Similarity

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

Features = Mapping[str, "Tensor"]
"""What is kept of images: tensors by name on the CPU, the first axis of each counts images."""

Parity = Literal["sound", "published"]
"""Where the published code computes something else than it says: ``sound`` does what the method says,
``published`` what the published numbers came from. Each metric's docstring says what it changes."""


@dataclass(frozen=True)
class MetricSettings:
    """How a metric is computed; None stands for the metric's own value."""

    layer: str | None = None
    denoising_step: int | None = None  # the published number: higher is LESS noise, see retrieval.modes
    weights: str | None = None  # a local folder; None: the hub's pinned revision, or the package's own weights
    image_size: int | None = None
    similarity: Similarity = "cosine"
    directions: Directions = "both"
    parity: Parity = "sound"
    branches: Branches = "both"
    noise: NoiseRule | None = None
    seed: int = PUBLISHED_SEED
    prompt: str = PUBLISHED_PROMPT
    dtype: DtypeName = "auto"

    def __post_init__(self) -> None:
        for name, words in (("similarity", Similarity), ("directions", Directions), ("parity", Parity)):
            value = getattr(self, name)
            if value not in get_args(words):
                raise UsageError(f"unknown {name} '{value}'; known: {', '.join(get_args(words))}")


class Metric(ABC):
    """A likeness of two images, the query first."""

    higher_is_closer: bool = True
    one_role: bool = False  # an image has the same features as a query and in the gallery: encode it once
    comparative: ClassVar[bool] = False  # a score depends on the other images that it is asked with
    batch_size: int = 16  # images that are encoded at a time

    @abstractmethod
    def encode(self, images: Sequence["Image.Image"], role: Role) -> Features:
        """Return the features of upright RGB images."""

    @abstractmethod
    def score(self, query: Features, gallery: Features) -> "NDArray[np.float32]":
        """Score one query (features of one image) against each image of the gallery: float32 ``[images]``."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return all that changes a feature, as JSON values."""

    def need_scores(self) -> None:
        """Raise a UsageError where scores of single pairs mean nothing."""
        if self.comparative:
            raise UsageError("an ensemble votes between images: it has no score for one pair")

    def rank(self, query: Features, gallery: Features) -> "NDArray[np.int64]":
        """Return the gallery's positions from closest to farthest; ties keep the gallery's order."""
        import numpy as np

        scores = self.score(query, gallery)
        order: NDArray[np.int64] = np.argsort(-scores if self.higher_is_closer else scores, kind="stable")
        return order


@dataclass(frozen=True, kw_only=True)
class MetricDescription:
    """What there is to know of a metric before it is loaded."""

    name: str
    title: str
    licence: str  # of the weights
    download_mb: int  # 0: nothing is downloaded
    loader: str  # "module:function", taking (description, settings, device, offline)
    repo: str = ""
    revision: str = ""
    needs: str = ""  # a package beyond the project's own
    layer: str = ""  # the default; empty: the metric has no layers
    denoising_step: int = 0  # the default; 0: the metric adds no noise
    image_size: int = 0  # pixels a side; 0: the model's own
    published_as: str = ""  # its row in the paper's tables
    members: tuple[str, ...] = ()  # of an ensemble
    mode: str = ""  # of the embedded model: its target is the default


_SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
_SD15_REVISION = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"
_CLIP, _CLIP_REVISION = "openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"
_DINOV2, _DINOV2_REVISION = "facebook/dinov2-small", "ed25f3a31f01632728cabb09d1542f84ab7b0056"


def _entry(
    name: str,
    title: str,
    licence: str,
    download_mb: int,
    loader: str,
    repo: str = "",
    revision: str = "",
    **more: Any,
) -> MetricDescription:
    return MetricDescription(
        name=name,
        title=title,
        licence=licence,
        download_mb=download_mb,
        loader=f"retrieval.metrics.{loader}",
        repo=repo,
        revision=revision,
        **more,
    )


_ENTRIES = (
    _entry("diffsim-s", "DiffSim-S on Stable Diffusion 1.5", "CreativeML OpenRAIL-M", 4270, "diffusion:load_sd15",
           _SD15, _SD15_REVISION, layer="U_0", denoising_step=900, image_size=512, published_as="DiffSim-S SD1.5"),
    *(
        _entry(name, f"the embedded model in mode {mode}", "Apache-2.0", 0, "diffusion:load_mini", mode=mode,
               layer=MINI_MODES[mode].target.layer, denoising_step=MINI_MODES[mode].target.denoising_step)
        for name, mode in (("mini", "style"), ("mini-instance", "instance"), ("mini-semantic", "semantic"))
    ),
    _entry("clip-aas", "AAS on CLIP ViT-B/32", "MIT", 605, "vit:load_clip_aas",
           _CLIP, _CLIP_REVISION, layer="11", published_as="CLIP AAS"),
    _entry("dinov2-aas", "AAS on DINOv2 ViT-S/14", "Apache-2.0", 88, "vit:load_dinov2_aas",
           _DINOV2, _DINOV2_REVISION, layer="11", published_as="DINOv2 AAS"),
    _entry("clip", "CLIP ViT-B/32 image embedding", "MIT", 605, "vectors:load_embedding",
           _CLIP, _CLIP_REVISION, published_as="CLIP"),
    _entry("dinov2", "DINOv2 ViT-S/14 class token", "Apache-2.0", 88, "vectors:load_embedding",
           _DINOV2, _DINOV2_REVISION, published_as="DINOv2"),
    _entry("clip-feats", "CLIP layer output without AAS", "MIT", 605, "vit:load_clip_feats",
           _CLIP, _CLIP_REVISION, layer="11"),
    _entry("dinov2-feats", "DINOv2 attention output without AAS", "Apache-2.0", 88, "vit:load_dinov2_feats",
           _DINOV2, _DINOV2_REVISION, layer="11"),
    _entry("diffusion-feats", "SD 1.5 attention output without AAS", "CreativeML OpenRAIL-M", 4270,
           "diffusion:load_feats", _SD15, _SD15_REVISION, layer="U_0", denoising_step=900, image_size=512),
    _entry("diffsim-c", "DiffSim-C: IP-Adapter Plus on SD 1.5", "CreativeML OpenRAIL-M, Apache-2.0", 6896,
           "diffsim_c:load", _SD15, _SD15_REVISION, layer="U_0", denoising_step=600, image_size=512,
           published_as="DiffSim-C SD1.5"),
    _entry("diffsim-xl", "DiffSim-S on SD-XL", "CreativeML OpenRAIL++-M", 6940, "larger:load_sdxl",
           "stabilityai/stable-diffusion-xl-base-1.0", "462165984030d82259a11f4367a4eed129e94a7b",
           layer="U_0", denoising_step=900, image_size=512, published_as="DiffSim-S SD-XL"),
    _entry("dit-256", "DiffSim on DiT-XL/2, 256 px", "CC-BY-NC-4.0", 3035, "larger:load_dit",
           "facebook/DiT-XL-2-256", "eab87f77abd5aef071a632f08807fbaab0b704d0",
           layer="14", denoising_step=900, image_size=256, published_as="DiT-XL/2 256"),
    _entry("dit-512", "DiffSim on DiT-XL/2, 512 px", "CC-BY-NC-4.0", 3035, "larger:load_dit",
           "facebook/DiT-XL-2-512", "main",  # its commit could not be looked up where this was written
           layer="14", denoising_step=900, image_size=512, published_as="DiT-XL/2 512"),
    _entry("rgb-hist", "RGB histogram, 8 bins a channel", "Apache-2.0", 0, "vectors:load_rgb_histogram"),
    _entry("lab-hist", "Lab histogram, 5 x 6 x 6 bins", "Apache-2.0", 0, "vectors:load_lab_histogram"),
    _entry("ssim", "structural similarity of luma at 128 px", "Apache-2.0", 0, "ssim:load", image_size=128),
    _entry("lpips", "LPIPS, VGG network", "BSD-2-Clause", 553, "packages:load_lpips", image_size=512,
           needs="lpips", published_as="LPIPS"),
    _entry("dreamsim", "DreamSim, ensemble", "MIT", 1040, "packages:load_dreamsim", needs="dreamsim"),
    _entry("gram", "VGG-19 Gram matrix of conv5_1", "BSD-3-Clause", 548, "gram:load", published_as="Gram"),
    _entry("ffa", "foreground feature averaging, DINOv2 ViT-B/14", "Apache-2.0", 346, "ffa:load",
           "facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415", needs="rembg", published_as="FFA"),
    _entry("ensemble", "majority vote of CLIP, DINOv2 and DiffSim-S", "see its members", 4963, "ensemble:load",
           published_as="Ensemble", members=("clip", "dinov2", "diffsim-s")),
)  # fmt: skip

METRICS: dict[str, MetricDescription] = {entry.name: entry for entry in _ENTRIES}


def describe_metric(name: str) -> MetricDescription:
    """Look a metric up; an unknown name is a UsageError that lists the known ones."""
    if name not in METRICS:
        raise UsageError(f"unknown metric '{name}'; known: {', '.join(METRICS)}")
    return METRICS[name]


def load_metric(
    name: str, settings: MetricSettings | None = None, device: "torch.device | str" = "cpu", offline: bool = False
) -> Metric:
    """Load the metric ``name``.

    Raises:
        UsageError: an unknown name, layer or size.
        ModelError: its weights are missing or incomplete.
        DependencyError: a package that it needs is not installed.
    """
    import torch

    description = describe_metric(name)
    module, _, function = description.loader.partition(":")
    load = getattr(import_module(module), function)
    return cast(Metric, load(description, settings or MetricSettings(), torch.device(device), offline))
