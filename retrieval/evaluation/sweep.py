"""Sweep layers and denoising steps over one benchmark: the paper's figures 5 and 7 to 13.

With a folder to keep things in, a sweep that was stopped goes on: finished cells are read back, and of an unfinished
step the features that were there. The features of a finished step are removed, so the folder holds one step at most.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from retrieval.errors import UsageError
from retrieval.evaluation.benchmarks.paper import BenchOptions
from retrieval.evaluation.benchmarks.table import describe_bench
from retrieval.evaluation.feature_store import FeatureStore, Progress, silent
from retrieval.evaluation.measures import Measurement, accuracy, decide
from retrieval.evaluation.triplets import Triplet, images_of
from retrieval.files import write_text
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.metrics.aas import ExtractorMetric
from retrieval.metrics.features import select
from retrieval.models.modes import at_step
from retrieval.types import Role

CELLS, FEATURES = "sweep-cells", "sweep-features"  # folders in the cache


def sweep(
    bench: str,
    source: Path,
    metric: ExtractorMetric,
    layers: Sequence[str],
    steps: Sequence[int],
    options: BenchOptions | None = None,
    rules: DecodeRules | None = None,
    progress: Progress = silent,
    cache: Path | None = None,
) -> dict[tuple[str, int], Measurement]:
    """Return the triplet accuracy by layer and denoising step.

    One network pass a step and image yields every layer; features of one step are in memory (or in ``cache``) at a
    time.

    Raises:
        UsageError: no layers or steps, or see :func:`retrieval.evaluation.runner.run_bench`.
    """
    if not layers or not steps:
        raise UsageError("a sweep needs one layer and one denoising step at least")
    triplets = describe_bench(bench).load(source, options or BenchOptions())
    rules = rules or DecodeRules()
    found: dict[tuple[str, int], Measurement] = {}
    for step in steps:
        files = {}
        for layer in layers:
            if cache is not None:
                at = metric.at(at_step(layer, step))
                files[layer] = cache / CELLS / f"{_digest(bench, at, triplets, rules)}.json"
            if layer in files and files[layer].is_file():
                found[layer, step] = _read_cell(files[layer])
        missing = [layer for layer in layers if (layer, step) not in found]
        measured = _measure(bench, metric, step, missing, triplets, rules, progress, cache) if missing else {}
        for layer, (measurement, store) in measured.items():
            found[layer, step] = measurement
            if layer in files:
                write_text(files[layer], json.dumps(asdict(measurement)))
                store.forget()
    return {(layer, step): found[layer, step] for step in steps for layer in layers}


def _measure(
    bench: str,
    metric: ExtractorMetric,
    step: int,
    layers: Sequence[str],
    triplets: Sequence[Triplet],
    rules: DecodeRules,
    progress: Progress,
    cache: Path | None,
) -> dict[str, tuple[Measurement, FeatureStore]]:
    """Measure the cells of one step; the stores come back for what is to be done with their features."""
    folder = None if cache is None else cache / FEATURES
    stores = {layer: FeatureStore(metric.at(at_step(layer, step)), rules, folder) for layer in layers}
    queries, gallery = images_of(triplets)
    sides: list[tuple[Role, list[Path]]] = [("query", queries), ("gallery", gallery)]
    if metric.one_role:
        sides = [("gallery", sorted({*queries, *gallery}))]
    for role, paths in sides:
        _fill(stores, step, metric, role, paths, rules, progress)
    return {
        layer: (next(accuracy(bench, f"{layer} at {step}", triplets, decide(store, triplets))), store)
        for layer, store in stores.items()
    }


def _fill(
    stores: Mapping[str, FeatureStore],
    step: int,
    metric: ExtractorMetric,
    role: Role,
    paths: Sequence[Path],
    rules: DecodeRules,
    progress: Progress,
) -> None:
    """Give every store the features of ``paths``; images that all of them have are not encoded again."""
    targets = {layer: at_step(layer, step) for layer in stores}
    for start in range(0, len(paths), metric.batch_size):
        fresh = []
        for path in paths[start : start + metric.batch_size]:
            image, facts = read_image(path, rules)
            known = [store.recall(path, facts.sha256, role) for store in stores.values()]
            if not all(known):
                fresh.append((path, image, facts.sha256))
        encoded = metric.encode_many([image for _, image, _ in fresh], role, list(targets.values())) if fresh else {}
        for row, (path, _, sha256) in enumerate(fresh):
            for layer, store in stores.items():
                store.put(path, role, select(encoded[targets[layer]], slice(row, row + 1)), sha256)
        progress(f"step {step}, {role}", min(start + metric.batch_size, len(paths)), len(paths))


def _digest(bench: str, metric: ExtractorMetric, triplets: Sequence[Triplet], rules: DecodeRules) -> str:
    """Return a name for a cell: another metric, setting, triplet or changed image has another one."""
    files = {path: path.stat() for t in triplets for path in (t.reference, t.nearer, t.farther)}
    told = {
        "bench": bench,
        "metric": metric.fingerprint(),
        "compared": metric.comparison(),
        "pixels": rules.fingerprint(),
        "triplets": [[str(t.reference), str(t.nearer), str(t.farther)] for t in triplets],
        "files": sorted([str(path), facts.st_size, facts.st_mtime_ns] for path, facts in files.items()),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _read_cell(file: Path) -> Measurement:
    try:
        return Measurement(**json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{file} is damaged ({error}): remove it, and the sweep measures that cell again") from error
