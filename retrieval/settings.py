"""The settings of models, builds, searches and engines, with every default of the project.

``ModelChoices`` and ``SearchChoices`` repeat the fields of a settings class, because Python's types can't derive a
``TypedDict`` from a dataclass. ``tests/project`` holds both sides equal.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import UnionType
from typing import Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints

from retrieval.errors import UsageError
from retrieval.types import (
    AlphaRule,
    AttentionRule,
    Branches,
    ColourRule,
    DeviceName,
    DtypeName,
    NoiseRule,
    Parity,
    Similarity,
)

PUBLISHED_SEED = 2334
PUBLISHED_PROMPT = "High quality image"
MOST_WORKERS = 256
OLDEST_CODEC = "qkv-float16"  # of indexes from before there were several
MAX_PIXELS = 2**28  # of one decoded image: a phone's 200 megapixels, and 1 GiB as Pillow holds them
CORRESPONDENCES = 12  # pairs of cells that an explanation names: as many lines as a picture of two images holds
CANDIDATES = 200  # of the first stage, by default
REGION_CANDIDATES = 400  # the same for a region: vectors of whole images may miss a small subject
NEWEST = "newest"  # the default order of a fill


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a model is run: the part that indexes and metrics share."""

    weights: str | None = None  # a local folder; None: the hub's pinned revision, or none (cells)
    image_size: int | None = None  # pixels a side; None: the model's own
    branches: Branches = "both"
    noise: NoiseRule | None = None  # None: the model's own (pairwise for SD 1.5)
    seed: int = PUBLISHED_SEED
    prompt: str = PUBLISHED_PROMPT
    dtype: DtypeName = "auto"
    parity: Parity = "sound"


@dataclass(frozen=True, kw_only=True)
class ModelSettings(RunSettings):
    """A model and how it is run. An index stores these settings, so that a search runs exactly as the build did."""

    model: str = "auto"  # a name in retrieval.models.registry.EXTRACTORS; auto: retrieval.models.defaults.choose_model
    alpha: AlphaRule = "white"
    colour: ColourRule = "srgb"
    codec: str | None = None  # how tensors are stored: a name in index_store.codecs.CODECS; None: the model's own
    # Name -> local folder, or None for the hub or for a folder of that name beside `weights`.
    # None as a whole: the encoders that the modes name.
    encoders: Mapping[str, str | None] | None = None

    def __post_init__(self) -> None:
        at_least(1, image_size=self.image_size)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelSettings":
        """Read the values that :meth:`to_json` wrote.

        Keys of newer versions are ignored: the index's fingerprint says whether its tensors still mean the same. An
        index without a rule for colours was made before there was one, and keeps to it.

        Raises:
            TypeError: a value has another type than its field, as only somebody else's file can.
        """
        known = get_type_hints(cls)
        for name, value in values.items():
            if name in known and not _fits(value, known[name]):
                raise TypeError(f"{name} makes no sense: {str(value)[:40]!r}")
        older: dict[str, Any] = {"codec": OLDEST_CODEC, "colour": "ignored"}
        return cls(**{**older, **{key: value for key, value in values.items() if key in known}})


def _fits(value: object, hint: Any) -> bool:
    """Say whether a JSON value has the type of an annotation; a name of a Literal may be one of another version."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return isinstance(value, str)
    if kind is Mapping:
        return isinstance(value, dict) and all(_fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items())
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


class ModelChoices(TypedDict, total=False):
    """The fields of :class:`ModelSettings` that a caller chose; an existing index keeps its own values for the rest."""

    model: str
    weights: str | None
    image_size: int | None
    branches: Branches
    noise: NoiseRule | None
    seed: int
    prompt: str
    dtype: DtypeName
    alpha: AlphaRule
    colour: ColourRule
    codec: str | None
    parity: Parity
    encoders: Mapping[str, str | None] | None


@dataclass(frozen=True)
class BuildSettings:
    """How a build is run. Nothing here changes a score by more than 1e-5 in float32."""

    device: DeviceName = "auto"
    batch_size: int | None = None  # images; None: the model's own for the device, less where memory is short
    workers: int | None = None  # decoding threads; None: one per core, 8 at most
    max_pixels: int = MAX_PIXELS  # a larger image is rejected; a JPEG that is decoded at a reduced scale counts as that
    segment_rows: int = 1024  # commit a segment at this many images ...
    commit_seconds: float = 60.0  # ... or when its oldest image has waited this long: a kill loses no more than that
    retry_rejects: bool = False
    rehash: bool = False  # compare the bytes of all files, not only of those whose size or times changed
    gone: bool = False  # remove the items of vanished files even where most of a source vanished at once
    offline: bool = False
    attention: AttentionRule | None = None  # None: the index's own rule; a new index is eager

    def __post_init__(self) -> None:
        at_least(1, batch_size=self.batch_size, workers=self.workers, segment_rows=self.segment_rows)
        at_least(1, max_pixels=self.max_pixels)
        at_least(0, commit_seconds=self.commit_seconds)
        if (self.workers or 0) > MOST_WORKERS:
            raise UsageError(f"workers must be at most {MOST_WORKERS}, not {self.workers}: each is a decoding thread")
        if (self.batch_size or 0) > self.segment_rows:
            raise UsageError(
                f"batch size {self.batch_size} is more than the {self.segment_rows} images of one commit",
                advice="smaller-batch-or-larger-commit",
            )


@dataclass(frozen=True)
class SearchSettings:
    """How a search is run."""

    k: int = 10
    candidates: int | None = None  # images that the encoders choose for exact scoring; None: CANDIDATES, or more
    exhaustive: bool = False  # score every image of the index instead
    rerank: bool = True  # False: return the encoders' ranking, without exact scores
    similarity: Similarity = "cosine"
    min_score: float | None = None  # leave out results that score worse
    exclude_query: bool = False  # search as if files with the query's bytes were not indexed

    def __post_init__(self) -> None:
        at_least(1, k=self.k, candidates=self.candidates)
        if self.min_score is not None and math.isnan(self.min_score):
            raise UsageError("min score must be a number, not nan")
        if self.exhaustive and not self.rerank:
            raise UsageError("exhaustive scoring and a ranking without exact scores exclude each other: choose one")
        if self.similarity not in get_args(Similarity):
            raise UsageError(f"unknown similarity '{self.similarity}'; known: {', '.join(get_args(Similarity))}")


class SearchChoices(TypedDict, total=False):
    """The fields of :class:`SearchSettings` that a caller chose."""

    k: int
    candidates: int | None
    exhaustive: bool
    rerank: bool
    similarity: Similarity
    min_score: float | None
    exclude_query: bool


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


def at_least(least: int, **values: float | None) -> None:
    """Raise a UsageError that names the first of ``values`` below ``least`` or NaN; None passes."""
    for name, value in values.items():
        if value is not None and not value >= least:
            raise UsageError(f"{name.replace('_', ' ')} must be at least {least}, not {value}")
