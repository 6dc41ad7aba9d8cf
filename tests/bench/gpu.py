"""Measure SD 1.5 at its real size on a GPU: images per second of a build, and score differences from the CPU.

Random weights of tests/support/real_size.py will do: they have the speed and the rounding of the real ones. It works on
any device; `python -m tests.bench FOLDER --device cuda` runs it. An uncounted first build in the same process selects
kernels and fills the allocators.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from index_store.codecs import CODECS, DEFAULT_CODEC
from retrieval import BuildSettings, build_index
from retrieval.encoding.loaded_models import to_floats
from retrieval.indexing.reports import BuildEvent
from retrieval.models.modes import SD15_MODES
from retrieval.models.registry import load_extractor
from retrieval.sample_images.pictures import gallery
from retrieval.scoring.aas import QKV
from retrieval.settings import ModelSettings
from retrieval.types import DeviceName, DtypeName
from tests.bench.timing import Row, device_peak, finish
from tests.support.reranking import scores_of

FLOOR = 227.0  # images/s: 3.48 TFLOP an image in three modes, at 790 TFLOP/s, which an H200 reaches in 16 bits
IMAGES = 1024  # three modes of them take 12 GB of disk while they are measured
WARM_UP = 128
DRAWN = 64
COMPARED = 4
DTYPES: tuple[DtypeName, ...] = ("float16", "bfloat16")
TARGET = SD15_MODES["style"].target


def draw_photos(folder: Path, images: int) -> Path:
    """Write ``count`` JPEG files: 64 drawn pictures, then the same pictures rotated."""
    folder.mkdir(parents=True)
    drawn = [Image.fromarray(each.pixels) for _, each in zip(range(min(images, DRAWN)), gallery(512), strict=False)]
    for number in range(images):
        drawn[number % len(drawn)].rotate(90 * (number // len(drawn))).save(folder / f"{number:04d}.jpg")
    return folder


@dataclass(frozen=True)
class Speed:
    """Images a second of one build whose model was loaded."""

    whole: float  # from decoding the first to the commit of the last
    steady: float  # of the batches behind the first quarter, to the last: neither filling the stages nor committing
    stages: Mapping[str, float]  # that each could do alone


def build_speed(photos: Path, weights: Path, device: DeviceName, dtype: DtypeName) -> Speed:
    """Index JPEG files in three modes."""
    index = photos.with_name(f"{dtype}.diffsim")
    began, done = [0.0], [(0.0, 0)]

    def note(event: BuildEvent) -> None:
        if event.stage == "loaded":
            began[0] = time.perf_counter()
        elif event.stage == "encode":
            done.append((time.perf_counter(), event.done))

    report = build_index(
        photos,
        index,
        model="sd15",
        weights=str(weights),
        encoders={},
        dtype=dtype,
        run=BuildSettings(device=device),
        on_progress=note,
    )
    finish()
    seconds = time.perf_counter() - began[0]
    shutil.rmtree(index)
    return Speed(report.added / seconds, steady(done[1:]), report.speeds)


def steady(done: Sequence[tuple[float, int]]) -> float:
    """Return images a second from (seconds, images so far) of every batch; 0 for a single batch."""
    last, images = done[-1]
    first, before = next(batch for batch in done if batch[1] >= images / 4)
    return (images - before) / (last - first) if images > before else 0.0


@torch.inference_mode()
def scores(weights: Path, device: str, dtype: DtypeName) -> list[float]:
    """Return the scores of one drawn image with some others, computed on ``device`` as a search computes them."""
    settings = ModelSettings(model="sd15", weights=str(weights), dtype=dtype, encoders={})
    model = load_extractor(settings, torch.device(device), offline=True)
    pictures = [Image.fromarray(drawn.pixels) for _, drawn in zip(range(COMPARED), gallery(512), strict=False)]
    pixels = [model.prepare(picture)[None] for picture in pictures]
    query = model.extract(pixels[0], [TARGET], "query")[TARGET]
    items = QKV.cat([model.extract(each, [TARGET], "gallery")[TARGET] for each in pixels])
    stored = CODECS[DEFAULT_CODEC].encode(to_floats(items))

    def read(rows: Sequence[int]) -> Mapping[str, np.ndarray]:
        return {name: array[list(rows)] for name, array in stored.items()}

    found: list[float] = scores_of([query], [range(COMPARED)], read)[0].tolist()
    return found


def gpu_rows(
    folder: Path, weights: Path, device: DeviceName, dtypes: Sequence[DtypeName] = DTYPES, images: int = IMAGES
) -> list[Row]:
    """Measure builds in every dtype, and the scores against float32 on the CPU."""
    exact, photos = scores(weights, "cpu", "float32"), draw_photos(folder / "gpu" / "photos", images)
    warm_up = draw_photos(folder / "gpu" / "warm_up" / "photos", min(images, WARM_UP))
    rows: list[Row] = []
    for dtype in dtypes:
        cold = build_speed(warm_up, weights, device, dtype)
        speed = build_speed(photos, weights, device, dtype)
        listed = ", ".join(f"{stage} {found:.0f}" for stage, found in speed.stages.items())
        error = max(abs(a - b) for a, b in zip(scores(weights, device, dtype), exact, strict=True))
        rows += [
            (
                f"sd15 in {dtype}: build of {images} images, three modes, steady",
                f"{speed.steady:.1f} images/s",
                f"stages alone: {listed}",
            ),
            (
                f"  share of the {FLOOR:.0f} images/s that an H200's arithmetic allows",
                f"{speed.steady / FLOOR:.3f}",
                "",
            ),
            ("  whole, from the first file to the commit", f"{speed.whole:.1f} images/s", "without loading the model"),
            ("  whole, the process's first", f"{cold.whole:.1f} images/s", f"{min(images, WARM_UP)} images"),
            ("  scores, largest difference from float32 on the CPU", f"{error:.1e}", f"{COMPARED} pairs"),
        ]
    return [*rows, ("  peak memory of the device", f"{device_peak(device) / 1e9:.1f} GB", "of its own")]
