"""The settings of searches, engines, duplicates and clusters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict, get_args

from retrieval.errors import UsageError
from retrieval.settings.builds import MAX_PIXELS
from retrieval.settings.checks import at_least
from retrieval.types import DeviceName, Scaling, Similarity

CORRESPONDENCES = 12  # pairs of cells that an explanation names: as many lines as a picture of two images holds
CANDIDATES = 200  # of the first stage, by default
REGION_CANDIDATES = 400  # the same for a region: vectors of whole images may miss a small subject
TEXT_SHARE = 0.1  # of the images, which a text beside an image leaves
UNLIKE_WEIGHT = -1.0  # of a mode in which results should not be alike


@dataclass(frozen=True)
class SearchSettings:
    """How a search is run."""

    k: int = 10
    candidates: int | None = None  # images that the encoders choose for exact scoring; None: CANDIDATES, or more
    exhaustive: bool = False  # score every image of the index instead
    rerank: bool = True  # False: return the encoders' ranking, without exact scores
    text_share: float = TEXT_SHARE  # of the images, nearest to a text beside an image, that the image may find
    similarity: Similarity = "cosine"
    min_score: float | None = None  # leave out results that score worse
    exclude_self: bool = False  # search as if the item at the query's path were not indexed
    exclude_copies: bool = False  # search as if files with the query's bytes were not indexed, nor that item
    min_percentile: float | None = None  # leave out results below this percentile of random pairs, 0 to 100
    # Further modes that count beside the search's own: above 0 for candidates that are alike in them too, below 0 for
    # candidates that are not. The order goes by the sum of evidence; see retrieval.search.judging.
    mode_weights: Mapping[str, float] = field(default_factory=dict)
    look_closer: int = 0  # best results whose found box is encoded again from the file, to order them; see regions
    scaling: Scaling | None = None  # None: csls for several images at once, none for one; see retrieval.search.scaling

    def __post_init__(self) -> None:
        at_least(1, k=self.k, candidates=self.candidates)
        if self.min_score is not None and math.isnan(self.min_score):
            raise UsageError("min score must be a number, not nan")
        if not 0 < self.text_share <= 1:
            raise UsageError(f"text share must be above 0 and at most 1, not {self.text_share}")
        if self.exhaustive and not self.rerank:
            raise UsageError("exhaustive scoring and a ranking without exact scores exclude each other: choose one")
        if self.similarity not in get_args(Similarity):
            raise UsageError(f"unknown similarity '{self.similarity}'; known: {', '.join(get_args(Similarity))}")
        if self.min_percentile is not None and not 0 <= self.min_percentile <= 100:
            raise UsageError(f"min percentile must be a number from 0 to 100, not {self.min_percentile}")
        if not all(math.isfinite(weight) and weight for weight in self.mode_weights.values()):
            raise UsageError("the weight of a mode must be a finite number other than 0")
        if self.needs_percentiles and (not self.rerank or self.similarity != "cosine"):
            raise UsageError("percentiles are those of exact cosine scores: a ranking without them has none")
        at_least(0, look_closer=self.look_closer)
        if self.look_closer and (not self.rerank or self.similarity != "cosine" or self.mode_weights):
            raise UsageError("a closer look orders by exact cosine scores of one mode: choose that, or no closer look")
        if self.scaling not in (None, *get_args(Scaling)):
            raise UsageError(f"unknown scaling '{self.scaling}'; known: {', '.join(get_args(Scaling))}")
        if self.scaling == "csls" and (not self.rerank or self.similarity != "cosine" or self.mode_weights):
            raise UsageError("csls scales exact cosine scores of one mode: choose that, or no scaling")
        if self.scaling == "csls" and self.look_closer:
            raise UsageError("csls and a closer look both choose the order: leave one out")

    @property
    def needs_percentiles(self) -> bool:
        """Whether the search is impossible in an index without percentiles."""
        return self.min_percentile is not None or bool(self.mode_weights)


class SearchChoices(TypedDict, total=False):
    """The fields of :class:`SearchSettings` that a caller chose."""

    k: int
    candidates: int | None
    exhaustive: bool
    rerank: bool
    text_share: float
    similarity: Similarity
    min_score: float | None
    exclude_self: bool
    exclude_copies: bool
    min_percentile: float | None
    mode_weights: Mapping[str, float]
    look_closer: int
    scaling: Scaling | None


@dataclass(frozen=True)
class DuplicateSettings:
    """How copies are looked for."""

    mode: str | None = None  # whose exact scores tell similar images; None: the best for copies that the index has
    neighbours: int = 16  # of each image and encoder that are compared with it
    same: float = 0.65  # share of a picture's structure that must agree with that of its copy
    similar: float = 0.75  # closeness of similar images: 0 is a random pair of the index, 1 an image with itself
    references: tuple[str, ...] = ()  # folders whose images are never offered for deletion
    workers: int | None = None  # decoding threads; None: one per core, 8 at most

    def __post_init__(self) -> None:
        at_least(1, neighbours=self.neighbours, workers=self.workers)
        for name, value in (("same", self.same), ("similar", self.similar)):
            if not 0 < value <= 1:
                raise UsageError(f"{name} must lie above 0 and be at most 1, not {value}")


@dataclass(frozen=True)
class ClusterSettings:
    """How an index is divided into clusters."""

    mode: str | None = None  # None: the index's first
    neighbours: int = 15  # of each image and encoder: the edges of the graph that is divided
    min_size: int = 4  # images of the smallest cluster; fewer that lie together are noise
    rerank: bool = True  # weigh edges by exact scores; False: by the vectors alone

    def __post_init__(self) -> None:
        at_least(2, min_size=self.min_size, neighbours=self.neighbours)


@dataclass(frozen=True)
class EngineSettings:
    """Where an engine runs. Nothing here changes a score beyond the stated tolerance."""

    device: DeviceName = "auto"
    weights: str | None = None  # a folder with the same weights, in place of the one that the index remembers
    encoders: Mapping[str, str | None] = field(default_factory=dict)  # the same for each encoder, by name
    offline: bool = False
    max_cache: int = 2_000_000_000  # bytes of tensors that searches compute and store in the index; 0: none
    # Bytes of candidates that stay in the memory of the scoring device for later searches.
    # 0: none; None: the default of retrieval.search.tensors.memory_cache.
    memory: int | None = None
    max_pixels: int = MAX_PIXELS  # as in BuildSettings: of queries, and of candidates that searches compute

    def __post_init__(self) -> None:
        at_least(1, max_pixels=self.max_pixels)
        at_least(0, max_cache=self.max_cache, memory=self.memory)
