"""Indexing with ``mini``: a build beside its floors, other decoders, and a plain loop of transformers of like size.

The floors are times of their own: reading and decoding to the least size, the network, and writing with a flush. A
build that did nothing else, one after another on each core, would take their sum divided by the cores.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from retrieval import BuildSettings, build_index
from retrieval.devices.threads import use_one_core
from retrieval.encoding.loaded_models import decode_rules
from retrieval.images.decoding import read_image
from retrieval.models.mini.attention import mini_on
from retrieval.models.protocols import Pixels
from retrieval.sample_images.pictures import MOTIFS, STYLES, draw
from retrieval.settings import ModelSettings
from tests.bench.peers.tables import installed, interleaved, keep

SIDE = 1024
COLUMNS = ("what", "ms an image", "images/s", "of the floors' speed")


def write_photos(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of 1 MP, each drawn with another seed."""
    folder.mkdir(parents=True)
    names = [(style, motif) for style in STYLES for motif in MOTIFS]
    for number in range(count):
        style, motif = names[number % len(names)]
        drawn = Image.fromarray(draw(style, motif, 256, number))
        drawn.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=90)
    return sorted(folder.glob("*.jpg"))


def _floors(files: Sequence[Path], work: Path, cores: int) -> dict[str, Callable[[], object]]:
    model, rules = mini_on(torch.device("cpu"), 224), decode_rules(ModelSettings(model="mini"))
    images = [read_image(file, rules)[0] for file in files]
    squares = [torch.from_numpy(model.prepare(image)[:224, :224]).permute(2, 0, 1)[None] for image in images]
    payload = np.random.default_rng(0).bytes(71_000)  # what an index of four modes takes

    def network(square: torch.Tensor) -> None:
        with torch.inference_mode():
            model._network.stages(square)

    def spread(work: Callable[[Any], object], over: Sequence[Any]) -> None:
        with ThreadPoolExecutor(cores, initializer=use_one_core) as pool:
            list(pool.map(work, over))

    def write() -> None:
        with (work / "floor").open("wb") as file:
            for _ in files:
                file.write(payload)
            file.flush()
            os.fsync(file.fileno())

    return {
        "floor: read and decode": lambda: spread(lambda file: read_image(file, rules), files),
        "floor: network": lambda: spread(network, squares),
        "floor: write": write,
    }


def _decoders(files: Sequence[Path], cores: int) -> dict[str, Callable[[], object]]:
    ways: dict[str, Callable[[Path], object]] = {"Pillow, whole": lambda file: np.asarray(Image.open(file))}
    if installed("simplejpeg"):
        import simplejpeg

        ways["simplejpeg, whole"] = lambda file: simplejpeg.decode_jpeg(file.read_bytes())
        least = {"min_height": 336, "min_width": 336, "min_factor": 1}
        ways["simplejpeg, at our scale"] = lambda file: simplejpeg.decode_jpeg(file.read_bytes(), **least)

    def spread(way: Callable[[Path], object]) -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(way, files))

    return {f"decoder: {name}": lambda way=way: spread(way) for name, way in ways.items()}


def _transformers_loop(files: Sequence[Path]) -> Callable[[], object]:
    """Pillow, then EfficientNet-B0 with random weights in batches of 16: 0.39 GFLOP an image as Lite0 has."""
    from transformers import EfficientNetConfig, EfficientNetModel

    size: dict[str, Any] = {"image_size": 224, "width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}
    network = EfficientNetModel(EfficientNetConfig(**size)).eval()

    def pixels(file: Path) -> Pixels:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))

    def loop() -> None:
        with torch.inference_mode():
            for at in range(0, len(files), 16):
                batch = np.stack([pixels(file) for file in files[at : at + 16]])
                network(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 127.5 - 1)

    return loop


def build_without_percentiles(photos: Path, index: Path, workers: int | None = None) -> float:
    """Index ``photos`` in four modes, without the percentiles at the end; return the seconds."""
    shutil.rmtree(index, ignore_errors=True)
    start = time.perf_counter()
    with mock.patch("retrieval.indexing.build.calibrate_where_due"):
        build_index(photos, index, model="mini", run=BuildSettings(device="cpu", workers=workers))
    return time.perf_counter() - start


def run(quick: bool, out: Path, work: Path, rounds: int) -> None:
    """Measure builds with one, two and the default number of decoding threads, and everything beside them."""
    files, cores = write_photos(work / "photos", 48 if quick else 256), torch.get_num_threads()
    ways: dict[str, Callable[[], object]] = {
        "build": lambda: build_without_percentiles(work / "photos", work / "i.diffsim"),
        "build, one decoding thread": lambda: build_without_percentiles(work / "photos", work / "i.diffsim", 1),
        **_floors(files, work, cores),
        **_decoders(files, cores),
        "EfficientNet-B0 of transformers, batches of 16": _transformers_loop(files),
    }
    times = interleaved(ways, rounds)
    floors = sum(spread.median for name, spread in times.items() if name.startswith("floor"))
    rows = [
        {
            "what": name,
            "ms an image": spread.median / len(files),
            "images/s": f"{1e3 * len(files) / spread.median:.1f}",
            "of the floors' speed": floors / spread.median if name.startswith("build") else None,
            "all": spread,
        }
        for name, spread in times.items()
    ]
    keep(out, "indexing", COLUMNS, rows, images=len(files), of=f"JPEG files of {SIDE} x {SIDE}", threads=cores)
