"""What a GPU makes of SD 1.5 at its real size: images a second of a build, and how far its scores are from the CPU's.

The weights may be random (tests/real_size.py writes them): speed and rounding are those of the real ones. Works on any
device; `python -m tests.bench FOLDER --device cuda` runs it.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from retrieval import BuildSettings, build_index
from retrieval.aas import aligned_attention_scores
from retrieval.backbones import load_extractor
from retrieval.events import BuildEvent
from retrieval.gallery import gallery
from retrieval.modes import SD15_MODES
from retrieval.settings import DeviceName, ModelSettings
from retrieval.vocabulary import DtypeName
from tests.bench.timing import Row, device_peak, finish

FLOOR = 227.0  # images/s: 3.48 TFLOP an image in three modes, at 790 TFLOP/s, which an H200 reaches in 16 bits
IMAGES = 256
DRAWN = 64
COMPARED = 4
DTYPES: tuple[DtypeName, ...] = ("float16", "bfloat16")
TARGET = SD15_MODES["style"].target


def draw_photos(folder: Path, images: int) -> Path:
    """Write so many JPEG files: 64 drawn pictures, and the same turned."""
    folder.mkdir(parents=True)
    drawn = [Image.fromarray(each.pixels) for _, each in zip(range(min(images, DRAWN)), gallery(512), strict=False)]
    for number in range(images):
        drawn[number % len(drawn)].rotate(90 * (number // len(drawn))).save(folder / f"{number:04d}.jpg")
    return folder


def build_speed(photos: Path, weights: Path, device: DeviceName, dtype: DtypeName) -> tuple[float, dict[str, float]]:
    """Index JPEG files in three modes, from decoding to the commit; return images a second, whole and by stage.

    Loading the model is left out.
    """
    index = photos.with_name(f"{dtype}.diffsim")
    began = [0.0]

    def note(event: BuildEvent) -> None:
        if event.kind == "loaded":
            began[0] = time.perf_counter()

    run = BuildSettings(device=device)
    report = build_index(
        photos, index, model="sd15", weights=str(weights), encoders={}, dtype=dtype, run=run, on_event=note
    )
    finish()
    seconds = time.perf_counter() - began[0]
    shutil.rmtree(index)
    return report.added / seconds, report.speeds


@torch.inference_mode()
def scores(weights: Path, device: str, dtype: DtypeName) -> list[float]:
    """Return the scores of one drawn image with some others, from tensors computed on ``device``."""
    settings = ModelSettings(model="sd15", weights=str(weights), dtype=dtype, encoders={})
    model = load_extractor(settings, torch.device(device), offline=True)
    pictures = [Image.fromarray(drawn.pixels) for _, drawn in zip(range(COMPARED), gallery(512), strict=False)]
    pixels = [model.prepare(picture) for picture in pictures]
    query = model.extract(pixels[0][None], [TARGET], "query")[TARGET]
    return [
        float(aligned_attention_scores(query, model.extract(each[None], [TARGET], "gallery")[TARGET])[0])
        for each in pixels
    ]


def gpu_rows(
    folder: Path, weights: Path, device: DeviceName, dtypes: Sequence[DtypeName] = DTYPES, images: int = IMAGES
) -> list[Row]:
    """Measure builds in every dtype, and the scores against float32 on the CPU."""
    exact, photos = scores(weights, "cpu", "float32"), draw_photos(folder / "gpu" / "photos", images)
    rows: list[Row] = []
    for dtype in dtypes:
        speed, stages = build_speed(photos, weights, device, dtype)
        listed = ", ".join(f"{stage} {found:.0f}" for stage, found in stages.items())
        error = max(abs(a - b) for a, b in zip(scores(weights, device, dtype), exact, strict=True))
        rows += [
            (
                f"sd15 in {dtype}: build of {images} images, three modes",
                f"{speed:.1f} images/s",
                f"stages alone: {listed}",
            ),
            (f"  share of the {FLOOR:.0f} images/s that an H200's arithmetic allows", f"{speed / FLOOR:.3f}", ""),
            ("  scores, largest difference from float32 on the CPU", f"{error:.1e}", f"{COMPARED} pairs"),
        ]
    return [*rows, ("  peak memory of the device", f"{device_peak(device) / 1e9:.1f} GB", "of its own")]
