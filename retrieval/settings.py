"""What a score depends on, and what a build may choose: every default of the project lives here, once."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypedDict, get_args

from retrieval.errors import UsageError
from retrieval.types import AlphaRule, AttentionRule, Branches, DeviceName, DtypeName, NoiseRule, Parity, Similarity

PUBLISHED_SEED = 2334
PUBLISHED_PROMPT = "High quality image"
MOST_WORKERS = 256
NEWEST = "newest"  # the order in which a fill goes on, unless another is named


@dataclass(frozen=True)
class ModelSettings:
    """A model and how it is run. Stored in the index, so that a search runs exactly what the build ran."""

    model: str = "auto"  # a name of retrieval.models.registry.EXTRACTORS; auto: see retrieval.backbones.choose_model
    weights: str | None = None  # a local folder; None: the hub's pinned revision, or none (mini)
    image_size: int | None = None  # pixels a side; None: the model's own
    branches: Branches = "both"
    noise: NoiseRule | None = None  # None: the model's own (pairwise for SD 1.5)
    seed: int = PUBLISHED_SEED
    prompt: str = PUBLISHED_PROMPT
    dtype: DtypeName = "auto"
    alpha: AlphaRule = "white"
    codec: str = "qkv-float16"  # a name of index_store.codecs.CODECS: how tensors are kept
    parity: Parity = "sound"
    # name -> local folder, or None for the hub or for a folder of that name beside `weights`.
    # None as a whole: the encoders that the modes name.
    encoders: Mapping[str, str | None] | None = None

    def __post_init__(self) -> None:
        at_least(1, image_size=self.image_size)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the index's settings."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelSettings":
        """Read what :meth:`to_json` wrote; keys of newer versions are ignored (the fingerprint guards meaning)."""
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


class ModelChoices(TypedDict, total=False):
    """Fields of :class:`ModelSettings` that a caller chose; an index's own values stand for the others."""

    model: str
    weights: str | None
    image_size: int | None
    branches: Branches
    noise: NoiseRule | None
    seed: int
    prompt: str
    dtype: DtypeName
    alpha: AlphaRule
    codec: str
    parity: Parity
    encoders: Mapping[str, str | None] | None


@dataclass(frozen=True)
class BuildSettings:
    """How a build is run; nothing here changes a score by more than 1e-5 in float32."""

    device: DeviceName = "auto"
    batch_size: int | None = None  # images; None: the model's own for the device, less where memory is short
    workers: int | None = None  # decoding threads; None: one a core, 8 at most
    segment_rows: int = 1024  # a segment is committed at this many images ...
    commit_seconds: float = 60.0  # ... or when its oldest image is this old: what a kill can cost
    retry_rejects: bool = False
    offline: bool = False
    attention: AttentionRule | None = None  # None: as the index was built before; a new one is eager

    def __post_init__(self) -> None:
        at_least(1, batch_size=self.batch_size, workers=self.workers, segment_rows=self.segment_rows)
        at_least(0, commit_seconds=self.commit_seconds)
        if (self.workers or 0) > MOST_WORKERS:
            raise UsageError(
                f"workers must be at most {MOST_WORKERS}, not {self.workers}: they are threads that decode"
            )
        if (self.batch_size or 0) > self.segment_rows:
            raise UsageError(
                f"batch size {self.batch_size} is more than the {self.segment_rows} images of one commit: choose less, "
                "or more of these with --segment-rows"
            )


@dataclass(frozen=True)
class SearchSettings:
    """How a search is run."""

    k: int = 10
    candidates: int = 200  # how many the coarse stage hands to the re-ranker
    exhaustive: bool = False  # score every image of the index instead
    rerank: bool = True  # False: the coarse ranking as it is
    similarity: Similarity = "cosine"
    min_score: float | None = None  # leave out results that score worse
    exclude_query: bool = False  # search as if the index held no file of the query's bytes

    def __post_init__(self) -> None:
        at_least(1, k=self.k, candidates=self.candidates)
        if self.min_score is not None and math.isnan(self.min_score):
            raise UsageError("min score must be a number, not nan")
        if self.exhaustive and not self.rerank:
            raise UsageError("exhaustive scoring and the bare coarse ranking exclude each other: choose one")
        if self.similarity not in get_args(Similarity):
            raise UsageError(f"unknown similarity '{self.similarity}'; known: {', '.join(get_args(Similarity))}")


class SearchChoices(TypedDict, total=False):
    """Fields of :class:`SearchSettings` that a caller chose."""

    k: int
    candidates: int
    exhaustive: bool
    rerank: bool
    similarity: Similarity
    min_score: float | None
    exclude_query: bool


@dataclass(frozen=True)
class EngineSettings:
    """Where an engine runs; nothing here changes a score beyond the stated tolerance."""

    device: DeviceName = "auto"
    weights: str | None = None  # in place of the folder that the index remembers; the weights must be the same
    encoders: Mapping[str, str | None] = field(default_factory=dict)  # likewise, a folder an encoder
    offline: bool = False
    max_cache: int = 2_000_000_000  # bytes of tensors that searches computed and keep; 0: none
    # Bytes of candidates that stay for later searches on the device that scores.
    # 0: none; None: as retrieval.search.memory_cache says.
    memory: int | None = None

    def __post_init__(self) -> None:
        at_least(0, max_cache=self.max_cache, memory=self.memory)


def at_least(least: int, **values: float | None) -> None:
    """Raise a UsageError that names the first of ``values`` below ``least``, or no number; None is left alone."""
    for name, value in values.items():
        if value is not None and not value >= least:
            raise UsageError(f"{name.replace('_', ' ')} must be at least {least}, not {value}")
