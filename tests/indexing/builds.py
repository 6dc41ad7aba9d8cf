"""Builds and fills with the tiny model, and what tests ask of an index afterwards."""

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index_store.locate import is_index
from index_store.reader import IndexReader
from retrieval.encoding.loaded_models import LoadedModels, load_models
from retrieval.indexing.build import build_index
from retrieval.indexing.fill import fill_index
from retrieval.indexing.reports import BuildEvent, BuildReport, FillReport
from retrieval.search.engine import Engine
from retrieval.search.results import Results
from retrieval.settings import BuildSettings
from tests.support.ranking import assert_same_ranking
from tests.support.sample_index import RUN
from tests.support.stub_models import load_tiny

REAL = BuildSettings(device="cpu", batch_size=4, workers=1, segment_rows=8)
LAZY = replace(RUN, attention="lazy")
BOTH = ["style", "instance"]


def build(photos: Path, index: Path, run: BuildSettings = RUN, **choices: Any) -> BuildReport:
    """Build with the tiny model; a new index stores Q, K and V, of which modes share none."""
    defaults: dict[str, Any] = {"model": "cells", "modes": ["style", "semantic"], "load": load_tiny}
    if not is_index(index):
        defaults["codec"] = "qkv-float16"
    return build_index(photos, index, run=run, **{**defaults, **choices})


def real_build(photos: Path, index: Path, run: BuildSettings = REAL, **choices: Any) -> BuildReport:
    """Build with the model that is asked for, by default the embedded one."""
    return build(photos, index, run, **{"modes": ["style"], "load": load_models, **choices})


def ids_of(index: Path) -> dict[str, int]:
    """Return the ids of all items by file name."""
    return {Path(item.uri).name: item.id for item in IndexReader(index).items()}


def reasons_of(index: Path) -> dict[str, str]:
    """Return the reasons of all rejects by file name."""
    return {Path(reject.uri).name: reject.reason for reject in IndexReader(index).rejects()}


def touch_later(path: Path) -> None:
    """Move the time of change on by an hour, since a clock's tick may be longer than a test."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 3600 * 10**9))


def break_file(path: Path) -> None:
    """Replace a file by one that is no image."""
    path.write_bytes(b"no image")
    touch_later(path)


def files_of(index: Path) -> dict[str, tuple[int, int]]:
    """Every file but the lock, with what changes when it is written."""
    files = [path for path in index.rglob("*") if path.is_file() and path.name != "LOCK"]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def refuse_to_compute(event: BuildEvent) -> None:
    """Listen to a build that must compute nothing."""
    assert event.stage in ("hash", "planned", "model", "commit"), f"computed: {event}"


def stop_at(stage: str, number: int) -> Any:
    """Return an ``on_progress`` that interrupts the build at the n-th event of a stage."""
    left = [None] * number

    def on_progress(event: BuildEvent) -> None:
        if event.stage == stage and left:
            left.pop()
            if not left:
                raise KeyboardInterrupt

    return on_progress


def build_modes(
    photos: Path, index: Path, modes: list[str] | None = None, run: BuildSettings = RUN, **choices: Any
) -> BuildReport:
    """Build ``modes`` with the tiny model, or the modes that the index has."""
    return build(photos, index, run, modes=modes, **choices)


def fill(index: Path, **choices: Any) -> FillReport:
    """Fill with the tiny model."""
    return fill_index(index, **{"run": RUN, "load": load_tiny, **choices})


def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    """Note every batch that is encoded from now on: images, modes, encoders."""
    for thread in threading.enumerate():
        if thread.name.startswith("compute"):  # of a build that was interrupted
            thread.join(60)
    batches: list[tuple[int, tuple[str, ...], tuple[str, ...]]] = []
    begin = LoadedModels.begin

    def noting(self: LoadedModels, batch: Any, outputs: Any = None) -> Any:
        if batch:
            batches.append((len(batch), outputs.modes, outputs.encoders))
        return begin(self, batch, outputs)

    monkeypatch.setattr(LoadedModels, "begin", noting)
    return batches


def answers(index: Path, query: Path, mode: str = "instance", **choices: Any) -> Results:
    """Search for everything; the caller has put the tiny model in place of the engine's."""
    return Engine.open(index).search(query, mode, k=100, **choices)


def exact_scores(index: Path, query: Path, mode: str) -> dict[int, float]:
    """Return the exact scores of all items by id."""
    results = Engine.open(index).search(query, mode, k=1000, exhaustive=True)
    return {result.id: result.score for result in results if result.score is not None}


def assert_same_answers(found: Results, expected: Results, atol: float = 1e-6) -> None:
    """Fail unless two searches found the same items with the same scores of both stages, up to rounding."""
    assert_same_ranking(found, expected, atol)
    assert_same_scores(coarse_scores(found), coarse_scores(expected), atol)


def coarse_scores(results: Results) -> dict[str, float | None]:
    """Return the scores of the first stage by path."""
    return {result.path: result.coarse_score for result in results}


def assert_same_scores(found: dict[str, float | None], expected: dict[str, float | None], atol: float = 1e-6) -> None:
    """Fail unless the same paths have the same scores, up to rounding."""
    assert found.keys() == expected.keys()
    for path, score in expected.items():
        assert found[path] == (score if score is None else pytest.approx(score, abs=atol, rel=0)), path
