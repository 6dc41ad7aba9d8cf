"""The bodies of requests. Groups of fields mirror the groups of options of the command line and of the library."""

from typing import Annotated, Any, Self

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, model_validator

from retrieval.search.filters.filter import Filter
from retrieval.settings import ClusterSettings, DuplicateSettings, SearchSettings
from retrieval.types import Combine, Scaling, Similarity

MAX_ID = 2**63 - 1
WAIT_MS = 10_000  # by default, for work that may take minutes
_SEARCH, _DUPLICATES, _CLUSTERS = SearchSettings(), DuplicateSettings(), ClusterSettings()

Weight = Annotated[float, Field(gt=0, le=1e6, description="How much the image counts among several.")]
Fraction = Annotated[float, Field(ge=0, le=1e6)]
Side = Annotated[float, Field(gt=0, le=1e6)]
Texts = Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=100)]


class Strict(BaseModel):
    """A body without unknown fields, infinities and NaN."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ImageSource(Strict):
    """One picture: exactly one of these fields says where its bytes come from."""

    id: int | None = Field(None, ge=0, le=MAX_ID, description="An item of the index.")
    base64: Base64Bytes | None = Field(None, description="The bytes of an image file.")
    upload: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="The key of an upload, see POST /v1/uploads."
    )
    part: int | None = Field(None, ge=0, le=1000, description="The number of a file in this multipart request, from 0.")
    url: str | None = Field(None, max_length=2048, description="A picture on a host that the server allows.")

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(SOURCES)}")
        return self


SOURCES = tuple(ImageSource.model_fields)


class AskedImage(ImageSource):
    """A picture of a question, or a region of it, and its weight."""

    weight: Weight | None = None
    box: tuple[Fraction, Fraction, Side, Side] | None = Field(
        None, description="x, y, width and height: pixels, or fractions of the sides if all four are at most 1."
    )
    mask: ImageSource | None = Field(None, description="A picture that is white where this image counts.")
    subject: bool = Field(False, description="Only the subject of this image counts, where the model sees it.")

    @property
    def has_region(self) -> bool:
        """Whether a part of the image counts."""
        return self.box is not None or self.mask is not None or self.subject

    @model_validator(mode="after")
    def _has_one_region(self) -> Self:
        if (self.box is not None) + (self.mask is not None) + self.subject > 1:
            raise ValueError("choose one of box, mask and subject")
        return self


class IndexFields(Strict):
    """Which index is asked, and how long the answer may take."""

    index: str | None = Field(None, max_length=255, description="The index's name; by default the server's first.")
    mode: str | None = Field(None, max_length=64, description="By default the first mode of the index.")
    deadline_ms: int | None = Field(None, ge=1, le=3_600_000, description="By default the server's longest.")


class QuestionFields(Strict):
    """The images of one question."""

    images: list[AskedImage] = Field([], description="One picture or a board of several.")
    minus: list[AskedImage] = Field([], description="Pictures to move away from.")
    combine: Combine = Field("mean", description="How several images become one score.")
    texts: Texts = Field([], description="Texts ask on their own, or choose what the images may find.")


class FilterFields(Strict):
    """Which images may be found. A condition on a table of your own is not offered: it would read a server's file."""

    under: Texts = Field([], description="Folders: the image lies below one of them.")
    glob: Texts = Field([], description="Patterns that the end of a path fits, like `cats/*.jpg`.")
    newer: str | None = Field(None, max_length=64, description="Changed at or after this date, or age such as `7d`.")
    older: str | None = Field(None, max_length=64, description="Changed before this.")
    source: Texts = Field([], description="Sources of the index, by the end of their paths.")

    def filter(self) -> Filter | None:
        """Return the library's filter; None: every image may be found. A UsageError for a time of another form."""
        given = {name: getattr(self, name) for name in FilterFields.model_fields}
        return Filter(**given) if any(given.values()) else None


class ChoiceFields(Strict):
    """How a search is run."""

    k: int = Field(_SEARCH.k, ge=1, le=MAX_ID, description="Number of results.")
    candidates: int | None = Field(None, ge=1, le=MAX_ID, description="Images that get an exact score.")
    exhaustive: bool = Field(False, description="Score every image.")
    rerank: bool = Field(True, description="False: the encoders' order, without exact scores.")
    similarity: Similarity = _SEARCH.similarity
    min_score: float | None = Field(None, description="Leave out worse scores.")
    text_share: float = Field(
        _SEARCH.text_share, gt=0, le=1, description="Share of the images that a text beside an image leaves."
    )
    exclude_self: bool = Field(False, description="Leave out the item that asks.")
    exclude_copies: bool = Field(False, description="Leave out files with the same bytes as the query, too.")

    min_percentile: float | None = Field(None, ge=0, le=100, description="Leave out results below, of random pairs.")
    mode_weights: dict[str, float] = Field({}, max_length=16, description="Further modes that count, by their weight.")
    look_closer: int = Field(0, ge=0, le=100, description="Results ordered by the place of the region in their files.")
    scaling: Scaling | None = None

    def settings(self) -> SearchSettings:
        """Return the library's settings; choices that contradict each other are a UsageError."""
        return SearchSettings(**{name: getattr(self, name) for name in ChoiceFields.model_fields})


_EXAMPLES: list[Any] = [
    {"images": [{"id": 17}], "mode": "style", "k": 5},
    {"images": [{"id": 17, "weight": 2}, {"id": 3, "box": [0.1, 0.2, 0.5, 0.4]}], "minus": [{"id": 4}]},
]


class SearchRequest(IndexFields, QuestionFields, ChoiceFields, FilterFields):
    """One question."""

    model_config = ConfigDict(json_schema_extra={"examples": _EXAMPLES})


class SearchManyRequest(IndexFields, ChoiceFields, FilterFields):
    """Several questions with the same choices; each has its own answer or error."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"queries": [{"images": [{"id": 1}]}, {"images": [{"id": 2}]}], "k": 3}]}
    )
    queries: list[QuestionFields] = Field(min_length=1)


class ScoreRequest(IndexFields):
    """A pair of pictures: the first asks, the second takes the role of an indexed one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"first": {"id": 1}, "second": {"id": 2}}]})
    first: ImageSource
    second: ImageSource


class ExplainRequest(IndexFields):
    """Scores to explain, of one picture with items of the index."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": {"id": 1}, "candidates": [2, 3]}]})
    query: ImageSource
    candidates: list[Annotated[int, Field(ge=0, le=MAX_ID)]] = Field(min_length=1)
    correspondences: int = Field(12, ge=0, le=100, description="How many pairs of cells to name, the strongest.")


class GroupFields(Strict):
    """What duplicates and clusters have in common: fields of an address."""

    mode: str | None = Field(None, max_length=64, description="A mode of the index.")
    wait_ms: int = Field(WAIT_MS, ge=0, le=3_600_000, description="How long the answer may take before it is a 202.")


class DuplicateFields(GroupFields):
    """How copies are looked for."""

    neighbours: int = Field(_DUPLICATES.neighbours, ge=1, le=MAX_ID, description="By each encoder, of each image.")
    same: float = Field(_DUPLICATES.same, gt=0, le=1, description="Share of the structure in which copies agree.")
    similar: float = Field(_DUPLICATES.similar, gt=0, le=1, description="Closeness from which images are similar.")
    references: Texts = Field([], description="Folders whose images are never offered for deletion.")

    def settings(self) -> DuplicateSettings:
        """Return the library's settings; one thread decodes, because searches go on."""
        given = (self.mode, self.neighbours, self.same, self.similar, tuple(self.references))
        return DuplicateSettings(*given, workers=1)


class ClusterFields(GroupFields):
    """How an index is divided into clusters."""

    neighbours: int = Field(_CLUSTERS.neighbours, ge=2, le=MAX_ID, description="By each encoder, of each image.")
    min_size: int = Field(_CLUSTERS.min_size, ge=2, le=MAX_ID, description="Fewer images are noise.")
    rerank: bool = Field(True, description="False: vectors alone decide, without exact scores.")

    def settings(self) -> ClusterSettings:
        """Return the library's settings."""
        return ClusterSettings(self.mode, self.neighbours, self.min_size, self.rerank)
