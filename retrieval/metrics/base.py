"""The metric protocol, its settings, and features of images."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from retrieval.errors import UsageError
from retrieval.models.modes import LAST_STEP
from retrieval.settings import RunSettings, at_least
from retrieval.types import Directions, Parity, Role, Similarity

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

Features = Mapping[str, "Tensor"]
"""Tensors by name, on the CPU; the first axis of each counts images."""


@dataclass(frozen=True, kw_only=True)
class MetricSettings(RunSettings):
    """How a metric is computed; None stands for the metric's own value."""

    layer: str | None = None
    denoising_step: int | None = None  # the published number: higher is LESS noise, see retrieval.models.modes
    similarity: Similarity = "cosine"
    directions: Directions = "both"
    masks: str | None = None  # of ffa: a folder of given masks, in place of those that rembg finds

    def __post_init__(self) -> None:
        for name, words in (("similarity", Similarity), ("directions", Directions), ("parity", Parity)):
            value = getattr(self, name)
            if value not in get_args(words):
                raise UsageError(f"unknown {name} '{value}'; known: {', '.join(get_args(words))}")
        at_least(1, image_size=self.image_size, denoising_step=self.denoising_step)
        if (self.denoising_step or 0) >= LAST_STEP:
            raise UsageError(f"denoising step must be at most {LAST_STEP - 1}, not {self.denoising_step}")


class Metric(ABC):
    """A measure of similarity (or distance) between a query and an image of the gallery."""

    higher_is_closer: bool = True  # then scores lie in [-1, 1], which rounding may take them out of: see :meth:`shown`
    prompt: str = ""  # may hold {category}, which the runner replaces through :meth:`prompted`
    one_role: bool = False  # an image has the same features as a query and in the gallery, so it is encoded once
    comparative: ClassVar[bool] = False  # a score depends on the other images of the gallery
    batch_size: int = 16  # images encoded at a time

    @abstractmethod
    def encode(self, images: Sequence["Image.Image"], role: Role) -> Features:
        """Return the features of upright RGB images."""

    def encode_files(self, images: Sequence["Image.Image"], paths: Sequence["Path"], role: Role) -> Features:
        """Encode images that were read from ``paths``, for metrics that need the files' names (to find masks)."""
        return self.encode(images, role)

    def file_key(self, path: "Path") -> str:
        """Return a digest of all that the features of ``path`` depend on beside its bytes and :meth:`fingerprint`."""
        return ""

    def prompted(self, prompts: Sequence[str]) -> Mapping[str, "Metric"]:
        """Return the metric under each of ``prompts``; a metric without prompts raises a UsageError."""
        raise UsageError("this metric takes no prompts of categories; diffsim-s and diffsim-c do")

    @abstractmethod
    def score(self, query: Features, gallery: Features) -> "NDArray[np.float32]":
        """Score one query (features of one image) against each image of the gallery: float32 ``[images]``."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return every setting that changes a feature, as JSON values."""

    def shown(self, score: float) -> float:
        """Return a score as people see it, within the metric's own range; rankings use the score itself."""
        from retrieval.scoring.aas import bounded

        return bounded(score, "cosine" if self.higher_is_closer else "mse")

    def need_scores(self) -> None:
        """Raise a UsageError if a score of one pair alone means nothing."""
        if self.comparative:
            raise UsageError("an ensemble votes between images: it has no score for one pair")

    def rank(self, query: Features, gallery: Features) -> "NDArray[np.int64]":
        """Return the gallery's positions from closest to farthest; ties keep the gallery's order."""
        import numpy as np

        scores = self.score(query, gallery)
        order: NDArray[np.int64] = np.argsort(-scores if self.higher_is_closer else scores, kind="stable")
        return order
