"""Measure models on labelled sets, each in an index of its own that is deleted afterwards.

Quality comes from searches whose candidates are all images: each result has its exact score and its coarse rank.
"""

import gc
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.encoding.loaded_models import LoadedModels, load_models
from retrieval.errors import UsageError
from retrieval.evaluation.comparison.bootstrap import total_by_group
from retrieval.evaluation.comparison.costs import PeakMemory, median_ms
from retrieval.evaluation.comparison.labelled_sets import NOT_FOUND, LabelledSet, Scores
from retrieval.evaluation.comparison.results import JudgedMode, MeasuredCost, SetResult, rounded
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.indexing.build import build_index
from retrieval.indexing.reports import BuildReport
from retrieval.models.modes import Target
from retrieval.models.registry import EXTRACTORS, default_encoders, describe_extractor, unknown_mode
from retrieval.models.weights.finding import are_cached
from retrieval.progress import Cancellation, OnProgress, Progress, ignore_progress
from retrieval.search.engine import Engine
from retrieval.settings import CANDIDATES, BuildSettings, EngineSettings, ModelChoices, ModelSettings
from retrieval.types import DeviceName

TIMED = 9  # warm searches of which the median is taken; one more comes before them


@dataclass(frozen=True, kw_only=True)
class ModelComparison:
    """The models to compare and how they are run."""

    models: Sequence[str]
    modes: Sequence[str] | None = None  # None: each model's default modes
    weights: Mapping[str, str] = field(default_factory=dict)  # a local folder by model
    device: DeviceName = "auto"
    offline: bool = False
    grey: bool = False  # measure greyscale copies of the images to find as well
    candidates: int = CANDIDATES  # of the timed searches
    on_progress: OnProgress = ignore_progress
    cancel: Cancellation | None = None

    def modes_of(self, model: str) -> list[str]:
        """Return the modes of a model that are compared.

        Raises:
            UsageError: the model has none of them.
        """
        description = describe_extractor(model)
        if self.modes is None:
            return list(description.default_modes)
        chosen = [mode for mode in self.modes if mode in description.modes]
        if not chosen:
            raise unknown_mode(", ".join(self.modes), model, description.modes)
        return chosen

    def identity(self, given: LabelledSet, model: str, grey: bool) -> str:
        """Return a digest of everything that the result of a model on a set depends on."""
        settings: dict[str, Any] = {"model": model, "modes": self.modes_of(model), "grey": grey}
        return given.identity({**settings, "candidates": self.candidates, "weights": self.weights.get(model)})


def models_at_hand() -> list[str]:
    """Return the models that load without a download: those without weights, and those in the hub's cache."""
    needs = {
        name: [each for each in (model, *default_encoders(name)) if each.download_mb]
        for name, model in EXTRACTORS.items()
    }
    return [name for name, needed in needs.items() if are_cached(needed)]


def compare(sets: Sequence[LabelledSet], how: ModelComparison, known: Sequence[SetResult] = ()) -> Iterator[SetResult]:
    """Measure every model on every set, and yield each result as it is complete.

    Args:
        sets: the labelled images.
        how: the models and settings.
        known: results of an earlier run. One whose files, labels and settings are the same is not measured again.

    Raises:
        UsageError: no model, an unknown model or mode, or an image that can't be used.
        CancelledError: the work was asked to stop.
    """
    if not how.models:
        raise UsageError("a comparison needs at least one model")
    done = {(result.key, result.identity) for result in known}
    todo = [
        _Measurement(model, given, grey, how.identity(given, model, grey))
        for model in how.models
        for given in sets
        for grey in ((False, True) if how.grey else (False,))
    ]
    todo = [each for each in todo if ((each.model, each.given.name, each.grey), each.identity) not in done]
    steps = _Steps(how, sum(each.steps(how) for each in todo))
    loader = _Loader()
    for each in todo:
        yield each.run(how, loader, steps)


class _Steps:
    """The progress of the whole comparison: an encoded image is a step, and so is a query in one mode."""

    def __init__(self, how: ModelComparison, total: int) -> None:
        self._how, self._total, self._before, self._now = how, total, 0, 0

    def show(self, now: int) -> None:
        """Tell that ``now`` steps of the running part are done."""
        if self._how.cancel is not None:
            self._how.cancel.check()
        self._now = now
        self._how.on_progress(Progress("comparing", self._before + now, self._total))

    def end_part(self) -> None:
        """Begin the next part."""
        self._before, self._now = self._before + self._now, 0


class _Loader:
    """Loads models as an index asks for them, keeps the last ones, and adds up the time that loading took."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last: tuple[Any, LoadedModels] | None = None

    def __call__(
        self, settings: ModelSettings, targets: Mapping[str, Target], device: str, offline: bool
    ) -> LoadedModels:
        asked = (settings, dict(targets), device)
        if self._last is None or self._last[0] != asked:
            self._last = None  # the memory of two models is never held at once
            gc.collect()
            began = time.perf_counter()
            self._last = asked, load_models(settings, targets, device, offline)
            self.seconds += time.perf_counter() - began
        return self._last[1]


@dataclass(frozen=True)
class _Measurement:
    """One model on one set."""

    model: str
    given: LabelledSet
    grey: bool
    identity: str

    def steps(self, how: ModelComparison) -> int:
        return len(self.given.images) + len(self.given.queries) * len(how.modes_of(self.model))

    def run(self, how: ModelComparison, loader: _Loader, steps: _Steps) -> SetResult:
        with tempfile.TemporaryDirectory(prefix="diffsim-compare-") as folder, PeakMemory() as peak:
            files = _grey_copies(self.given.images, Path(folder)) if self.grey else self.given.images
            engine, images_per_s = self._build(files, Path(folder) / "compared.diffsim", how, loader, steps)
            judged = {mode: self._judge(engine, mode, files, how, steps) for mode in engine.modes}
            cost = None if self.grey else self._cost(engine, images_per_s, how, peak)
        given = self.given
        sizes = len(given.images), len(given.queries)
        return SetResult(self.model, given.name, self.grey, given.measure, *sizes, judged, cost, self.identity)

    def _build(
        self, files: Sequence[Path], index: Path, how: ModelComparison, loader: _Loader, steps: _Steps
    ) -> tuple[Engine, float]:
        """Return the index's engine and the images a second of its build, without the loading of models."""
        choices: ModelChoices = {"model": self.model, "weights": how.weights.get(self.model)}
        run = BuildSettings(device=how.device, offline=how.offline)
        before = loader.seconds
        report = build_index(
            files,
            index,
            modes=how.modes_of(self.model),
            run=run,
            on_progress=lambda event: steps.show(event.done) if event.stage == "encode" else None,
            cancel=how.cancel,
            load=loader,
            **choices,
        )
        _check_whole(self.given, report)
        seconds = report.seconds - (loader.seconds - before)
        steps.show(len(files))
        steps.end_part()
        engine = Engine.open(index, EngineSettings(device=how.device, offline=how.offline), loader)
        return engine, len(files) / seconds

    def _judge(
        self, engine: Engine, mode: str, files: Sequence[Path], how: ModelComparison, steps: _Steps
    ) -> JudgedMode:
        row = {str(path): number for number, path in enumerate(files)}
        groups: list[str] = []
        values: list[tuple[float, float]] = []
        whole = len(files)
        searches = engine.search_many(self.given.queries, mode, cancel=how.cancel, k=whole, candidates=whole)
        for number, (query, results) in enumerate(searches):
            exact, coarse = np.full(whole, NOT_FOUND), np.full(whole, NOT_FOUND)
            for result in results:
                exact[row[result.path]] = NOT_FOUND if result.score is None else result.score
                coarse[row[result.path]] = NOT_FOUND if result.coarse_rank is None else -result.coarse_rank
            for group, pair in _both(self.given, query, exact, coarse):
                groups.append(group)
                values.append(pair)
            steps.show(number + 1)
        steps.end_part()
        of_exact, of_coarse = (total_by_group(groups, list(each)) for each in zip(*values, strict=True))
        return JudgedMode(of_exact.counts, of_exact.sums, of_coarse.sums)

    def _cost(self, engine: Engine, images_per_s: float, how: ModelComparison, peak: PeakMemory) -> MeasuredCost:
        candidates = min(how.candidates, len(engine))
        queries = [self.given.queries[row * len(self.given.queries) // (TIMED + 1)] for row in range(TIMED + 1)]
        search_ms = {
            mode: median_ms([partial(engine.search, query, mode, candidates=candidates) for query in queries])
            for mode in engine.modes
        }
        size = engine.info()["bytes"]["total"] / len(engine)
        # Rounded at once, so that a table is the same before and after it went through a file.
        return MeasuredCost(*rounded([images_per_s, size, candidates, search_ms, peak.bytes / 1e6]))


def _both(given: LabelledSet, query: Path, exact: Scores, coarse: Scores) -> Iterator[tuple[str, tuple[float, float]]]:
    for (group, first), (_, second) in zip(given.judge(query, exact), given.judge(query, coarse), strict=True):
        yield group, (first, second)


def _grey_copies(images: Sequence[Path], folder: Path) -> list[Path]:
    """Write a greyscale PNG of each image, in the order of ``images``, and return the paths."""
    copies = [folder / "grey" / f"{number:06d}.png" for number in range(len(images))]
    copies[0].parent.mkdir()
    for image, copy in zip(images, copies, strict=True):
        read_image(image, DecodeRules())[0].convert("L").save(copy)
    return copies


def _check_whole(given: LabelledSet, report: BuildReport) -> None:
    if report.items < len(given.images):
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.rejected.items())
        bad = f"{len(given.images) - report.items} of {len(given.images)} images can't be used ({reasons})"
        raise UsageError(f"{given.name}: {bad}; take them out, since a set without them is another set")
