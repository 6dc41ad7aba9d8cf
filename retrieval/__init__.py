"""DiffSim Retrieval: image search by style, by subject or by meaning.

>>> from retrieval import Engine, build_index
>>> build_index("./coco", "coco.diffsim", modes=["style"])
>>> Engine.open("coco.diffsim").search("query.jpg", mode="style", k=10)

Importing this package is cheap: each name below is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval.errors import DiffSimError
    from retrieval.grouping.cluster_results import Clusters, write_assignments
    from retrieval.grouping.clusters import find_clusters
    from retrieval.grouping.duplicates import find_duplicates
    from retrieval.grouping.results import Duplicates
    from retrieval.grouping.sheets import draw_clusters, draw_duplicates
    from retrieval.indexing.build import build_index
    from retrieval.indexing.dry_run import plan_build
    from retrieval.indexing.fill import fill_index
    from retrieval.indexing.reports import BuildEvent, BuildPlan, BuildReport, FillReport
    from retrieval.indexing.upkeep.updating import update_index
    from retrieval.progress import Cancellation, Progress
    from retrieval.search.engine import Engine
    from retrieval.search.explaining.explanation import BoardExplanation, ImageExplanation
    from retrieval.search.explaining.explanation_sheet import draw_explanations
    from retrieval.search.filters.filter import Filter
    from retrieval.search.queries.picture import Picture
    from retrieval.search.queries.query import Query
    from retrieval.search.queries.region import Box, Mask, Subject
    from retrieval.search.results import Note, Result, Results
    from retrieval.search.results_sheet import draw_results
    from retrieval.serving.client.client import Client
    from retrieval.settings import BuildSettings, ClusterSettings, DuplicateSettings, EngineSettings, SearchSettings

__all__ = [
    "BoardExplanation",
    "Box",
    "BuildEvent",
    "BuildPlan",
    "BuildReport",
    "BuildSettings",
    "Cancellation",
    "Client",
    "ClusterSettings",
    "Clusters",
    "DiffSimError",
    "DuplicateSettings",
    "Duplicates",
    "Engine",
    "EngineSettings",
    "FillReport",
    "Filter",
    "ImageExplanation",
    "Mask",
    "Note",
    "Picture",
    "Progress",
    "Query",
    "Result",
    "Results",
    "SearchSettings",
    "Subject",
    "build_index",
    "draw_clusters",
    "draw_duplicates",
    "draw_explanations",
    "draw_results",
    "fill_index",
    "find_clusters",
    "find_duplicates",
    "plan_build",
    "update_index",
    "write_assignments",
]

_HOMES = {
    "Box": "search.queries.region",
    "BuildEvent": "indexing.reports",
    "BuildPlan": "indexing.reports",
    "BuildReport": "indexing.reports",
    "BuildSettings": "settings",
    "Cancellation": "progress",
    "Client": "serving.client.client",
    "ClusterSettings": "settings",
    "Clusters": "grouping.cluster_results",
    "DiffSimError": "errors",
    "DuplicateSettings": "settings",
    "Duplicates": "grouping.results",
    "Engine": "search.engine",
    "EngineSettings": "settings",
    "FillReport": "indexing.reports",
    "Filter": "search.filters.filter",
    "BoardExplanation": "search.explaining.explanation",
    "ImageExplanation": "search.explaining.explanation",
    "Mask": "search.queries.region",
    "Note": "search.results",
    "Picture": "search.queries.picture",
    "Progress": "progress",
    "Query": "search.queries.query",
    "Result": "search.results",
    "Results": "search.results",
    "SearchSettings": "settings",
    "Subject": "search.queries.region",
    "build_index": "indexing.build",
    "draw_clusters": "grouping.sheets",
    "draw_duplicates": "grouping.sheets",
    "draw_explanations": "search.explaining.explanation_sheet",
    "draw_results": "search.results_sheet",
    "fill_index": "indexing.fill",
    "find_clusters": "grouping.clusters",
    "find_duplicates": "grouping.duplicates",
    "plan_build": "indexing.dry_run",
    "update_index": "indexing.upkeep.updating",
    "write_assignments": "grouping.cluster_results",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'retrieval' has no attribute '{name}'")
    return getattr(import_module(f"retrieval.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
