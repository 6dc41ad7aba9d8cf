"""Sweep layers and denoising steps over one benchmark: the paper's figures 5 and 7 to 13."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from retrieval.errors import UsageError
from retrieval.evaluation.benches import BenchOptions, describe_bench
from retrieval.evaluation.measure import Measurement, accuracy, decide
from retrieval.evaluation.store import FeatureStore, Progress, silent
from retrieval.evaluation.triplets import images_of
from retrieval.images import DecodeRules, read_image
from retrieval.metrics.extractor import ExtractorMetric
from retrieval.modes import at_step
from retrieval.vocabulary import Role


def sweep(
    bench: str,
    source: Path,
    metric: ExtractorMetric,
    layers: Sequence[str],
    steps: Sequence[int],
    options: BenchOptions | None = None,
    rules: DecodeRules | None = None,
    progress: Progress = silent,
) -> dict[tuple[str, int], Measurement]:
    """Return the triplet accuracy by layer and denoising step.

    One network pass a step and image yields every layer; features of one step are in memory at a time.

    Raises:
        UsageError: no layers or steps, or see :func:`retrieval.evaluation.run.run_bench`.
    """
    if not layers or not steps:
        raise UsageError("a sweep needs one layer and one denoising step at least")
    triplets = describe_bench(bench).load(source, options or BenchOptions())
    queries, gallery = images_of(triplets)
    found = {}
    for step in steps:
        stores = {layer: FeatureStore(metric.at(at_step(layer, step)), rules or DecodeRules()) for layer in layers}
        sides: list[tuple[Role, list[Path]]] = [("query", queries), ("gallery", gallery)]
        if metric.one_role:
            sides = [("gallery", sorted({*queries, *gallery}))]
        for role, paths in sides:
            _fill(stores, step, metric, role, paths, rules or DecodeRules(), progress)
        for layer, store in stores.items():
            right = decide(store, triplets)
            found[layer, step] = next(accuracy(bench, f"{layer} at {step}", triplets, right))
    return found


def _fill(
    stores: dict[str, FeatureStore],
    step: int,
    metric: ExtractorMetric,
    role: Role,
    paths: Sequence[Path],
    rules: DecodeRules,
    progress: Progress,
) -> None:
    targets = {layer: at_step(layer, step) for layer in stores}
    for start in range(0, len(paths), metric.batch_size):
        batch = paths[start : start + metric.batch_size]
        images: list[Image.Image] = [read_image(path, rules)[0] for path in batch]
        encoded = metric.encode_many(images, role, list(targets.values()))
        for layer, store in stores.items():
            for row, path in enumerate(batch):
                one = {name: t[row : row + 1] for name, t in encoded[targets[layer]].items()}
                store.put(path, role, one)
        progress(f"step {step}, {role}", min(start + metric.batch_size, len(paths)), len(paths))
