"""Measure the rates of a capacity plan on this machine in a few seconds."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from PIL import Image

from index_store.catalog import Item
from index_store.commit import commit
from index_store.files import FileRecord
from index_store.generation import Generation, SegmentRecord
from index_store.layout import Layout
from index_store.segment_writer import SegmentWriter
from index_store.tensors.compression import stored_size
from index_store.vectors.flat import FlatIndex
from retrieval.devices.precision import SCORING_PRECISION
from retrieval.encoding.batches import batch_size
from retrieval.encoding.encoded_batches import StoredBatch
from retrieval.encoding.loaded_models import LoadedModels, LoadModels, ModelInputs, load_models
from retrieval.encoding.recipe import Recipe, new_recipe
from retrieval.errors import ImageError, UsageError
from retrieval.images.decoding import read_image
from retrieval.images.discovery import find_images
from retrieval.indexing.capacity.rates import Rates
from retrieval.indexing.estimate import CATALOGUE_BYTES, measure_bytes_per_image
from retrieval.models.modes import Outputs
from retrieval.scoring.aas import QKV, Comparison, aligned_attention_scores
from retrieval.settings import BuildSettings, ModelChoices
from retrieval.version import CREATED_BY

SECONDS = 1.0  # that each rate is measured for, but for two rounds at least: the first one warms up
MOST_ROUNDS = 50
IMAGES = 16  # of a folder, that are decoded
SIDE = (1600, 1200)  # px of the photo that stands for all where no folder is given
SCANNED = 50_000  # vectors
SCORED = 25  # candidates at a time, as a search takes them
WRITTEN = 64  # images of the segment that is written
RECORDS = 500  # segments of the generation that is committed


def measure_rates(
    sources: Sequence[Path] = (),
    modes: Sequence[str] | None = None,
    run: BuildSettings | None = None,
    load: LoadModels = load_models,
    **choices: Unpack[ModelChoices],
) -> Rates:
    """Load the model and time every stage of a build and a search.

    Args:
        sources: images like those to index; none: a drawn photo of 2 megapixels.
        modes: kinds of similarity, by default those of the model.
        run: device and batch size.
        load: loads the models.
        **choices: fields of :class:`retrieval.settings.ModelSettings`.

    Raises:
        UsageError: an unknown name, or no image can be read.
        ModelError, DependencyError: as a build would.
    """
    run = run or BuildSettings()
    recipe = new_recipe(modes, choices, run)
    begun = time.perf_counter()
    models = load(recipe.settings, recipe.targets, run.device, run.offline).limited(run.max_pixels)
    loading = time.perf_counter() - begun
    batch = batch_size(recipe.settings, run)
    with tempfile.TemporaryDirectory() as folder:
        files = list(find_images(list(sources)).files[:IMAGES]) if sources else [_photo(Path(folder))]
        inputs, decode, image_bytes = _decoded(models, files)
        images = [inputs[number % len(inputs)] for number in range(batch)]
        compute = _seconds(partial(models.encode_stored, images, recipe.wanted)) / batch
        stored = models.encode_stored(images, recipe.wanted)
        write = _write_seconds(Path(folder) / "index", models, stored)
        commits = _commit_seconds(Path(folder) / "commits")
    arrays = [array for each in stored.tensors.values() for array in each.values()]
    tensor_bytes = round(sum(stored_size(list(array)) for array in arrays))
    return _rates(recipe, models, images, decode, image_bytes, tensor_bytes, compute, write, commits, loading)


def _rates(
    recipe: Recipe,
    models: LoadedModels,
    images: Sequence[ModelInputs],
    decode: float,
    image_bytes: float,
    tensor_bytes: float,
    compute: float,
    write: float,
    commits: tuple[float, float],
    loading: float,
) -> Rates:
    size, codec = measure_bytes_per_image(models), models.codec.name
    mode = next(iter(recipe.targets))
    one = Outputs((mode,), tuple(models.embedders))
    vector_bytes = sum(size.vectors.values())
    dim = max((number // 2 for number in size.vectors.values()), default=0)
    query = models.encode(images[:1], "query", one).tensors[mode]
    return Rates(
        model=recipe.chosen.name,
        device=models.device.type,
        image_bytes=image_bytes,
        decode_seconds=decode,
        compute_seconds=compute,
        write_seconds=write,
        tensor_bytes=tensor_bytes,
        vector_bytes=vector_bytes,
        beside_bytes=CATALOGUE_BYTES,
        query_bytes=sum(2 * tensor.numel() for tensor in (query.q, query.k, query.v)) + 2 * vector_bytes,
        encode_seconds=_seconds(lambda: models.encode(images[:1], "query", one)),
        scan_seconds=_scan_seconds(dim) * len(models.embedders) if dim else 0.0,
        score_seconds=_score_seconds(models, mode, query),
        candidate_bytes=size.tensors[codec][mode],
        commit_seconds=commits[0],
        commit_segment_seconds=commits[1],
        startup_seconds=loading,
    )


def _seconds(work: Callable[[], object]) -> float:
    """Return the median time of ``work``, which must wait for its device; the first round only warms up."""
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < 2 or (time.perf_counter() - begun < SECONDS and len(times) < MOST_ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def _photo(folder: Path) -> Path:
    """Write a JPEG with the detail of a photo: noise of every scale."""
    generator, picture = np.random.default_rng(0), np.zeros((SIDE[1], SIDE[0], 3), np.float32)
    for step in (400, 100, 25, 5, 1):
        rough = generator.integers(0, 256, (SIDE[1] // step, SIDE[0] // step, 3), np.uint8)
        layer = Image.fromarray(rough).resize(SIDE, Image.Resampling.BILINEAR)
        picture += np.asarray(layer, np.float32) * (0.35 if step > 1 else 0.08)
    path = folder / "photo.jpg"
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(path, quality=88)
    return path


def _decoded(models: LoadedModels, files: Sequence[Path]) -> tuple[list[ModelInputs], float, float]:
    """Return prepared images, the seconds of one, and the bytes of a file."""
    inputs, times, sizes = [], [], []
    begun = time.perf_counter()
    for file in [*files, *files] if len(files) > 1 else list(files) * 8:
        start = time.perf_counter()
        try:
            image, facts = read_image(file, models.rules)
        except ImageError:
            continue
        inputs.append(models.prepare(image))
        times.append(time.perf_counter() - start)
        sizes.append(facts.size)
        if len(times) > 2 and time.perf_counter() - begun > 2 * SECONDS:
            break
    if not inputs:
        raise UsageError("no image could be read to measure rates with")
    return inputs, float(np.median(times)), float(np.mean(sizes))


def _write_seconds(root: Path, models: LoadedModels, stored: StoredBatch) -> float:
    """Return the seconds of an image in a segment of WRITTEN images, flushed to the disk."""
    layout, number = Layout(root), 0
    count = len(next(iter(stored.vectors.values()))) if stored.vectors else WRITTEN
    start = time.perf_counter()
    writer = SegmentWriter(layout, "000001-measured", models.codec.name)
    while number < WRITTEN:
        items = [Item(number + each, f"/{number + each}.jpg", 1, 1, f"{each:064x}", 1, 1) for each in range(count)]
        writer.append(items, [], stored.vectors, stored.tensors)
        number += count
    writer.finish()
    return (time.perf_counter() - start) / number


def _commit_seconds(root: Path) -> tuple[float, float]:
    """Return the seconds of a commit, and how many more each segment of the index takes."""
    files = {name: FileRecord(1000, 1) for name in ("items.parquet", "e.npy", "segment.json", "segment.spare")}
    record = SegmentRecord("000001-0000", 0, 0, files, {})
    few = Generation(0, {"model": {}, "encoders": {}}, {}, (), (), ())
    many = replace(few, segments=tuple(replace(record, name=f"000001-{number:06d}") for number in range(RECORDS)))
    short, long = (
        _seconds(partial(commit, Layout(root / name), generation, CREATED_BY))
        for name, generation in (("few", few), ("many", many))
    )
    return short, max(0.0, long - short) / RECORDS


def _scan_seconds(dim: int) -> float:
    """Return the seconds in which one query is compared with a million vectors, all of them."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((SCANNED, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = FlatIndex(vectors)
    return _seconds(lambda: index.search(vectors[0], 200)) * 1e6 / SCANNED


def _score_seconds(models: LoadedModels, mode: str, query: QKV) -> float:
    """Return the seconds of scoring one candidate of ``mode``, with the projection of stored layer inputs."""
    how = Comparison(readout=models.readout(mode), precision=SCORING_PRECISION[models.device.type].dtype)
    candidates = QKV.cat([query] * SCORED)
    score = _seconds(torch.inference_mode()(lambda: aligned_attention_scores(query, candidates, how).tolist()))
    project = 0.0
    if models.codec.hidden:
        target = models.targets[mode]
        projection, shape = models.hidden_extractor().projection(target), models.hidden_extractor().hidden_shape(target)
        hidden = torch.zeros(SCORED, *shape, device=models.device)
        project = _seconds(torch.inference_mode()(lambda: float(projection(hidden).q.sum())))
    return (score + project) / SCORED
