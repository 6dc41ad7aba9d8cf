"""The settings of models, builds, searches and engines, with every default of the project.

``ModelChoices`` and ``SearchChoices`` repeat the fields of a settings class, because Python's types can't derive a
``TypedDict`` from a dataclass. ``tests/project`` holds both sides equal.
"""

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypedDict, get_args

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
    Scaling,
    Similarity,
    WorkerKind,
)

PUBLISHED_SEED = 2334
PUBLISHED_PROMPT = "High quality image"
MOST_WORKERS = 256
OLDEST_CODEC = "qkv-float16"  # of indexes from before there were several
MAX_PIXELS = 2**28  # of one decoded image: a phone's 200 megapixels, and 1 GiB as Pillow holds them
CORRESPONDENCES = 12  # pairs of cells that an explanation names: as many lines as a picture of two images holds
CANDIDATES = 200  # of the first stage, by default
REGION_CANDIDATES = 400  # the same for a region: vectors of whole images may miss a small subject
TEXT_SHARE = 0.1  # of the images, which a text beside an image leaves
UNLIKE_WEIGHT = -1.0  # of a mode in which results should not be alike
SHORTEST_TOKEN = 16  # characters of a server's token
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
        """
        known = {f.name for f in fields(cls)}
        older: dict[str, Any] = {"codec": OLDEST_CODEC, "colour": "ignored"}
        return cls(**{**older, **{key: value for key, value in values.items() if key in known}})


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
class WorkerSettings:
    """The workers of a build: processes of this machine, or actors of a Ray cluster."""

    kind: WorkerKind = "processes"
    count: int | None = None  # workers; None: a process for each core, or as many actors as the cluster has room for
    address: str | None = None  # of the Ray cluster; None: one is started on this machine
    cpus: float = 1.0  # of one actor
    gpus: float = 0.0  # of one actor; may be a fraction

    def __post_init__(self) -> None:
        at_least(1, count=self.count)
        at_least(0, cpus=self.cpus, gpus=self.gpus)
        if self.kind not in get_args(WorkerKind):
            raise UsageError(f"unknown kind of workers '{self.kind}'; known: {', '.join(get_args(WorkerKind))}")


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
    pool: WorkerSettings | None = None  # None: this process encodes the images

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
    text_share: float = TEXT_SHARE  # of the images, nearest to a text beside an image, that the image may find
    similarity: Similarity = "cosine"
    min_score: float | None = None  # leave out results that score worse
    exclude_self: bool = False  # search as if the item at the query's path were not indexed
    exclude_copies: bool = False  # search as if files with the query's bytes were not indexed, nor that item
    min_percentile: float | None = None  # leave out results below this percentile of random pairs, 0 to 100
    # Further modes that count beside the search's own: above 0 for candidates that are alike in them too, below 0 for
    # candidates that are not. The order goes by the sum of evidence; see retrieval.search.judging.
    mode_weights: Mapping[str, float] = field(default_factory=dict)
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
        if self.scaling not in (None, *get_args(Scaling)):
            raise UsageError(f"unknown scaling '{self.scaling}'; known: {', '.join(get_args(Scaling))}")
        if self.scaling == "csls" and (not self.rerank or self.similarity != "cosine" or self.mode_weights):
            raise UsageError("csls scales exact cosine scores of one mode: choose that, or no scaling")

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


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """The most that one request to a server may ask for. A refusal names the field."""

    k: int = 10_000
    candidates: int = 10_000
    images: int = 16  # of one question, those to move away from included
    queries: int = 32  # questions in one request
    explained: int = 10  # candidates in one request
    page: int = 1_000  # items in one list
    exhaustive: int = 20_000  # items of an index that an exhaustive search may score
    body_bytes: int = 2**26
    image_bytes: int = 2**25  # of one image file
    pixels: int = 2**26  # of one image that is asked with or shown
    queue: int = 64  # requests that are read, wait or are computed; more are told to come back
    deadline_ms: int = 30_000  # from a request's arrival to its answer
    requests_per_minute: int = 0  # that search, score, explain or upload, by each token or address; 0: any number

    def __post_init__(self) -> None:
        at_least(1, **{name: value for name, value in vars(self).items() if name != "requests_per_minute"})
        at_least(0, requests_per_minute=self.requests_per_minute)


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a server runs."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)  # every request must carry it; None: on loopback alone
    hosts: tuple[str, ...] = ()  # names that people may reach the server by, beside those of loopback and ``host``
    url_hosts: tuple[str, ...] = ()  # hosts that images may be fetched from; none: a URL is refused
    # A server reads: it keeps nothing in an index.
    engine: EngineSettings = field(default_factory=lambda: EngineSettings(max_cache=0))
    limits: ServerLimits = field(default_factory=ServerLimits)
    batch: int = 16  # questions that are answered together
    gather_ms: float = 4.0  # a batch waits so long for questions that are being read
    thumbnails: int = 256_000_000  # bytes of thumbnails in memory
    uploads: int = 256_000_000  # bytes of uploaded images in memory
    refresh_seconds: float = 1.0  # between looks for a new generation of each index

    def __post_init__(self) -> None:
        at_least(0, gather_ms=self.gather_ms, thumbnails=self.thumbnails, uploads=self.uploads)
        at_least(1, batch=self.batch)
        if not self.refresh_seconds > 0:
            raise UsageError(f"refresh seconds must be above 0, not {self.refresh_seconds}")
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise UsageError(f"a token must have {SHORTEST_TOKEN} characters at least")
        if self.token is None and not is_loopback(self.host):
            raise UsageError(
                f"a server on {self.host} can be reached by other machines, so it needs a token", advice="give-token"
            )


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches a server on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def at_least(least: int, **values: float | None) -> None:
    """Raise a UsageError that names the first of ``values`` below ``least`` or NaN; None passes."""
    for name, value in values.items():
        if value is not None and not value >= least:
            raise UsageError(f"{name.replace('_', ' ')} must be at least {least}, not {value}")
