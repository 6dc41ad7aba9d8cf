"""Sweep layers and denoising steps over one benchmark (the paper's figures 5 and 7 to 13).

With a cache folder, a sweep that was stopped continues: finished cells are read back, and so are the features of an
unfinished step. The features of a finished step are deleted, so the folder holds one step at most.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import UsageError
from retrieval.evaluation.benchmarks.table import describe_bench
from retrieval.evaluation.feature_store import FeatureStore
from retrieval.evaluation.measures import Measurement, accuracy, decide
from retrieval.evaluation.runner import Run
from retrieval.evaluation.triplets import Triplet, images_of
from retrieval.files import write_text
from retrieval.images.decoding import read_image
from retrieval.metrics.aas import ExtractorMetric
from retrieval.metrics.features import select
from retrieval.models.modes import at_step
from retrieval.progress import Progress
from retrieval.types import Role

CELLS, FEATURES = "sweep-cells", "sweep-features"  # folders in the cache


def sweep(
    bench: str, source: Path, name: str, layers: Sequence[str], steps: Sequence[int], run: Run
) -> dict[tuple[str, int], Measurement]:
    """Return the triplet accuracy of the run's metric ``name`` by layer and denoising step.

    One network pass for each step and image serves all layers. The features of one step are held at a time.

    Raises:
        UsageError: no layers or steps, a metric without them, or see :func:`retrieval.evaluation.runner.run_bench`.
        CancelledError: the run was asked to stop.
    """
    if not layers or not steps:
        raise UsageError("a sweep needs at least one layer and one denoising step")
    metric = run.metrics[name]
    if not isinstance(metric, ExtractorMetric):
        raise UsageError(f"{name} has no layers and steps to sweep; diffsim-s, diffsim-c, diffsim-xl and dit have")
    work = _Sweep(bench, metric, describe_bench(bench).load(source, run.options), run)
    found: dict[tuple[str, int], Measurement] = {}
    for step in steps:
        files = {} if run.cache is None else {layer: work.cell_file(run.cache, layer, step) for layer in layers}
        found |= {(layer, step): _read_cell(file) for layer, file in files.items() if file.is_file()}
        missing = [layer for layer in layers if (layer, step) not in found]
        for layer, (measurement, store) in (work.measure(step, missing) if missing else {}).items():
            found[layer, step] = measurement
            if layer in files:
                write_text(files[layer], json.dumps(asdict(measurement)))
                store.forget()
    return {(layer, step): found[layer, step] for step in steps for layer in layers}


@dataclass(frozen=True)
class _Sweep:
    """One metric on one benchmark's triplets."""

    bench: str
    metric: ExtractorMetric
    triplets: Sequence[Triplet]
    run: Run

    def measure(self, step: int, layers: Sequence[str]) -> dict[str, tuple[Measurement, FeatureStore]]:
        """Return the measurement of each cell of one step, with the store of its features."""
        folder = None if self.run.cache is None else self.run.cache / FEATURES
        stores = {layer: FeatureStore(self.metric.at(at_step(layer, step)), self.run.rules, folder) for layer in layers}
        queries, gallery = images_of(self.triplets)
        sides: list[tuple[Role, list[Path]]] = [("query", queries), ("gallery", gallery)]
        if self.metric.one_role:
            sides = [("gallery", sorted({*queries, *gallery}))]
        for role, paths in sides:
            self._encode(stores, step, role, paths)
        return {
            layer: (self._accuracy(f"{layer} at {step}", decide(store, self.triplets)), store)
            for layer, store in stores.items()
        }

    def _accuracy(self, cell: str, right: NDArray[np.float64]) -> Measurement:
        return next(accuracy(self.bench, cell, self.triplets, right))

    def _encode(self, stores: Mapping[str, FeatureStore], step: int, role: Role, paths: Sequence[Path]) -> None:
        """Give every store the features of ``paths``; an image that all stores have is not encoded again."""
        targets = {layer: at_step(layer, step) for layer in stores}
        size, listen = self.metric.batch_size, self.run.listener("sweep", f"step {step}")
        for start in range(0, len(paths), size):
            fresh = []
            for path in paths[start : start + size]:
                image, facts = read_image(path, self.run.rules)
                known = [store.recall(path, facts.sha256, role) for store in stores.values()]
                if not all(known):
                    fresh.append((path, image, facts.sha256))
            images = [image for _, image, _ in fresh]
            encoded = self.metric.encode_many(images, role, list(targets.values())) if fresh else {}
            for row, (path, _, sha256) in enumerate(fresh):
                for layer, store in stores.items():
                    store.put(path, role, select(encoded[targets[layer]], slice(row, row + 1)), sha256)
            listen(Progress(role, min(start + size, len(paths)), len(paths)))

    def cell_file(self, cache: Path, layer: str, step: int) -> Path:
        """Return the file of a cell; another metric, setting, triplet or changed image has another file."""
        metric = self.metric.at(at_step(layer, step))
        files = {path: path.stat() for t in self.triplets for path in (t.reference, t.nearer, t.farther)}
        identity = {
            "bench": self.bench,
            "metric": metric.fingerprint(),
            "compared": metric.comparison(),
            "pixels": self.run.rules.fingerprint(),
            "triplets": [[str(t.reference), str(t.nearer), str(t.farther)] for t in self.triplets],
            "files": sorted([str(path), facts.st_size, facts.st_mtime_ns] for path, facts in files.items()),
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        return cache / CELLS / f"{digest}.json"


def _read_cell(file: Path) -> Measurement:
    try:
        return Measurement(**json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{file} is damaged ({error}): remove it, and the sweep measures that cell again") from error
