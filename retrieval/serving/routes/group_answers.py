"""The bodies of answers about groups of images, as the OpenAPI document describes them."""

from typing import Literal

from pydantic import BaseModel, Field

from retrieval.serving.routes.answer_models import NoteAnswer


class WorkingAnswer(BaseModel):
    """Work that goes on: ask again for its result."""

    stage: str = Field(description="The stage that it is in; `waiting` behind other work.")
    done: int = Field(description="How much of the stage is done.")
    total: int = Field(description="0: not known yet.")


class MemberAnswer(BaseModel):
    """One image of a group of duplicates."""

    id: int
    path: str
    sha256: str
    width: int
    height: int
    file_bytes: int
    sharpness: float | None
    changes: list[str] = Field(description="How it differs from the kept image.")
    share: float | None = Field(description="Of the structure, 0 to 1, that agrees with the kept image.")
    score: float | None
    is_kept: bool
    is_reference: bool
    is_there: bool = Field(description="The file is where the index says, and unchanged.")


class GroupAnswer(BaseModel):
    """Copies of one picture, or images that are alike; the kept one first."""

    level: Literal["same", "similar"]
    reason: str = Field(description="Why the first one is kept.")
    members: list[MemberAnswer]
    offered: list[int] = Field(description="Ids of the members that may be deleted.")


class OfferedAnswer(BaseModel):
    """All members that may be deleted."""

    images: int
    bytes: int


class GroupsAnswer(BaseModel):
    """What answers about duplicates and clusters have in common."""

    schema_: Literal[1] = Field(alias="schema")
    index: str
    images: int
    notes: list[str]
    note_details: list[NoteAnswer]
    timing_s: dict[str, float]


class DuplicatesAnswer(GroupsAnswer):
    """Groups of copies, then of images that are alike."""

    mode: str | None = Field(description="The mode whose exact scores were used; null: the index has no tensors.")
    groups: list[GroupAnswer]
    offered: OfferedAnswer


class ClusterMemberAnswer(BaseModel):
    """One image of a cluster."""

    id: int
    path: str
    probability: float = Field(description="How firmly it belongs, 0 to 1.")
    score: float | None = Field(description="The exact score with the medoid.")


class ClusterAnswer(BaseModel):
    """One cluster, its medoid first."""

    number: int
    size: int
    cohesion: float = Field(description="Mean closeness to the medoid: 0 is a random pair, 1 equal images.")
    medoid: int
    members: list[ClusterMemberAnswer]


class NoiseAnswer(BaseModel):
    """One image of no cluster."""

    id: int
    path: str


class ClustersAnswer(GroupsAnswer):
    """The clusters of one mode, the largest first, and the images of none."""

    mode: str
    exact: bool = Field(description="Whether exact scores weighed the edges.")
    clusters: list[ClusterAnswer]
    noise: list[NoiseAnswer]
