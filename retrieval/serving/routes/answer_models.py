"""The bodies of answers, as the OpenAPI document describes them. Results are the JSON of the command line."""

from typing import Any, Literal

from pydantic import BaseModel, Field

BoxNumbers = tuple[float, float, float, float]


class ErrorAnswer(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="One sentence.")
    kind: str = Field(description="A stable word for programs.")
    limit: str | None = Field(None, description="The limit that was passed, see GET /v1/limits.")


class NeighbourAnswer(BaseModel):
    """One neighbour."""

    rank: int
    id: int
    path: str
    score: float | None
    coarse_score: float | None
    coarse_rank: int | None
    sha256: str
    found_box: BoxNumbers | None
    is_gone: bool
    percentile: float | None = Field(description="How many of 100 random pairs of the index score less.")
    one_in: int | None
    other_modes: list[dict[str, Any]]
    order_key: float | None


class NoteAnswer(BaseModel):
    """A note, its stable word, and what would help."""

    kind: str
    message: str
    advice: str
    facts: dict[str, Any]


class SearchAnswer(BaseModel):
    """Neighbours, closest first, and how they were found."""

    schema_: Literal[1] = Field(alias="schema")
    index: dict[str, Any]
    query: dict[str, Any]
    mode: str
    timing_ms: dict[str, float]
    computed: int
    cached: int
    left_out: int
    filter: dict[str, Any] | None
    notes: list[str]
    note_details: list[NoteAnswer]
    results: list[NeighbourAnswer]


class SearchManyAnswer(BaseModel):
    """One answer or error for each question, in the order in which they were asked."""

    schema_: Literal[1] = Field(alias="schema")
    answers: list[SearchAnswer | ErrorAnswer]


class ScoreAnswer(BaseModel):
    """The exact score of a pair."""

    schema_: Literal[1] = Field(alias="schema")
    index: str
    mode: str
    score: float


class ExplanationAnswer(BaseModel):
    """The parts of one score, on the cells of both pictures."""

    mode: str
    score: float
    query: dict[str, Any]
    candidate: dict[str, Any]
    correspondences: list[dict[str, Any]]
    id: int


class ExplainAnswer(BaseModel):
    """An explanation for each candidate."""

    schema_: Literal[1] = Field(alias="schema")
    index: str
    explanations: list[ExplanationAnswer]


class ItemAnswer(BaseModel):
    """One image of an index."""

    id: int
    path: str
    name: str
    size: int = Field(description="Bytes of its file.")
    width: int
    height: int
    modified: float = Field(description="Unix time in seconds.")
    sha256: str


class ItemsAnswer(BaseModel):
    """A page of items, in the order of their ids."""

    schema_: Literal[1] = Field(alias="schema")
    index: str
    generation: int
    total: int
    first: int
    items: list[ItemAnswer]


class MapAnswer(BaseModel):
    """The place of each image in a plane; position n of the three lists is one image."""

    schema_: Literal[1] = Field(alias="schema")
    index: str
    generation: int
    mode: str
    ids: list[int]
    x: list[float]
    y: list[float]


class IndexAnswer(BaseModel):
    """One index that is served."""

    name: str
    path: str
    model: str
    items: int
    generation: int
    modes: list[str]
    encoders: list[str]
    failure: str | None = Field(description="Why a newer generation is not served; null: the newest one is.")


class IndexesAnswer(BaseModel):
    """The indexes of this server, its default first."""

    schema_: Literal[1] = Field(alias="schema")
    indexes: list[IndexAnswer]


class UploadAnswer(BaseModel):
    """An image that the server holds for a while."""

    upload: str
    width: int
    height: int


class HealthAnswer(BaseModel):
    """The state of the server."""

    status: str
    version: str


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The request can't be read."},
    401: {"model": ErrorAnswer, "description": "The token is missing or wrong."},
    403: {"model": ErrorAnswer, "description": "The request may not be answered."},
    404: {"model": ErrorAnswer, "description": "There is no such index, item or upload."},
    408: {"model": ErrorAnswer, "description": "The body came too slowly."},
    413: {"model": ErrorAnswer, "description": "Too many bytes."},
    422: {"model": ErrorAnswer, "description": "The request makes no sense, or passes a limit."},
    429: {"model": ErrorAnswer, "description": "Too many requests: come back after Retry-After seconds."},
    503: {"model": ErrorAnswer, "description": "The server can't answer at the moment."},
    504: {"model": ErrorAnswer, "description": "The deadline passed."},
}
