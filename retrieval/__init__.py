"""DiffSim Retrieval: image search by style, instance or meaning.

>>> from retrieval import Engine, build_index
>>> build_index("./coco", "coco.diffsim", modes=["style"])
>>> Engine.open("coco.diffsim").search("query.jpg", mode="style", k=10)

Importing this package costs nothing: what is named below is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval.build import build_index
    from retrieval.dry_run import plan_build
    from retrieval.engine import Engine
    from retrieval.errors import DiffSimError
    from retrieval.events import BuildEvent, BuildPlan, BuildReport
    from retrieval.results import Result, Results
    from retrieval.settings import BuildSettings, EngineSettings, SearchSettings

__all__ = [
    "BuildEvent",
    "BuildPlan",
    "BuildReport",
    "BuildSettings",
    "DiffSimError",
    "Engine",
    "EngineSettings",
    "Result",
    "Results",
    "SearchSettings",
    "build_index",
    "plan_build",
]

_HOMES = {
    "BuildEvent": "events",
    "BuildPlan": "events",
    "BuildReport": "events",
    "BuildSettings": "settings",
    "DiffSimError": "errors",
    "Engine": "engine",
    "EngineSettings": "settings",
    "Result": "results",
    "Results": "results",
    "SearchSettings": "settings",
    "build_index": "build",
    "plan_build": "dry_run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'retrieval' has no attribute '{name}'")
    return getattr(import_module(f"retrieval.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
