"""Every setting and every default of the project, by what is set: models, builds, searches, servers.

``ModelChoices`` and ``SearchChoices`` repeat the fields of a settings class, because Python's types can't derive a
``TypedDict`` from a dataclass. ``tests/project`` holds both sides equal.
"""

from retrieval.settings.builds import MAX_PIXELS, MOST_WORKERS, NEWEST, BuildSettings, WorkerSettings
from retrieval.settings.checks import at_least
from retrieval.settings.models import (
    OLDEST_CODEC,
    PUBLISHED_PROMPT,
    PUBLISHED_SEED,
    ModelChoices,
    ModelSettings,
    RunSettings,
)
from retrieval.settings.searches import (
    CANDIDATES,
    CORRESPONDENCES,
    REGION_CANDIDATES,
    TEXT_SHARE,
    UNLIKE_WEIGHT,
    ClusterSettings,
    DuplicateSettings,
    EngineSettings,
    SearchChoices,
    SearchSettings,
)
from retrieval.settings.servers import SHORTEST_TOKEN, ReplicaSettings, ServerLimits, ServerSettings, is_loopback

__all__ = [
    "CANDIDATES",
    "CORRESPONDENCES",
    "MAX_PIXELS",
    "MOST_WORKERS",
    "NEWEST",
    "OLDEST_CODEC",
    "PUBLISHED_PROMPT",
    "PUBLISHED_SEED",
    "REGION_CANDIDATES",
    "SHORTEST_TOKEN",
    "TEXT_SHARE",
    "UNLIKE_WEIGHT",
    "BuildSettings",
    "ClusterSettings",
    "DuplicateSettings",
    "EngineSettings",
    "ModelChoices",
    "ModelSettings",
    "ReplicaSettings",
    "RunSettings",
    "SearchChoices",
    "SearchSettings",
    "ServerLimits",
    "ServerSettings",
    "WorkerSettings",
    "at_least",
    "is_loopback",
]
