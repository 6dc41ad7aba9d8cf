"""`python -m tests.bench.models.embedded [--quick]`: the embedded models on drawn photographs.

It indexes them, and searches warm and cold; for mini, it compares the speed with the sum of its parts.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from PIL import Image

from retrieval import BuildSettings, Engine, EngineSettings, build_index
from retrieval.encoding.loaded_models import decode_rules
from retrieval.images.decoding import read_image
from retrieval.models.mini.attention import mini_on
from retrieval.sample_images.pictures import gallery
from retrieval.settings import ModelSettings
from tests.bench.timing import Row, in_turns, peak_memory

PICTURES, QUICK = 128, 16  # drawn pictures, each of them turned once, too
OPTIONS = {"cells": "three modes", "mini": "four modes"}


def embedded(device: str, folder: Path, pictures: int = PICTURES) -> list[Row]:
    """Draw two JPEG files of 1 MP for each of so many pictures, and measure both embedded models on them."""
    photos = folder / "photos"
    photos.mkdir()
    for number, drawn in enumerate(islice(gallery(256), pictures)):
        big = Image.fromarray(drawn.pixels).resize((1024, 1024), Image.Resampling.BICUBIC)
        for turn in (0, 1):
            big.rotate(90 * turn).save(photos / f"{number:03d}_{turn}.jpg", quality=90)
    rows: list[Row] = []
    for model in OPTIONS:
        print(f"measuring {model} on {2 * pictures} files", file=sys.stderr, flush=True)
        rows += _rows(model, device, photos, folder / f"{model}.diffsim")
    return rows


def _rows(model: str, device: str, photos: Path, index: Path) -> list[Row]:
    files, run = sorted(photos.glob("*.jpg")), BuildSettings(device=device)  # type: ignore[arg-type]
    before = time.process_time()
    report = build_index(photos, index, model=model, run=run)
    cpu = 1e3 * (time.process_time() - before) / report.added
    size = sum(path.stat().st_size for path in index.rglob("*") if path.is_file()) / report.items
    return [
        (
            f"{model}: index JPEG files of 1 MP, {OPTIONS[model]}",
            f"{report.added / report.seconds:.1f} images/s",
            f"{cpu:.0f} ms of CPU time an image, models loading included",
        ),
        *(_floors(cpu, files[:32]) if model == "mini" and device == "cpu" else ()),
        (f"{model}: on disk, {OPTIONS[model]}", f"{size / 1e3:.1f} kB an image", ""),
        (f"{model}: peak memory so far", f"{peak_memory() / 1e6:.0f} MB", "of this process"),
        *_searches(model, device, files, index),
    ]


def _floors(cpu: float, files: list[Path]) -> list[Row]:
    """Compare the CPU time of a build with its decoding and its network alone, and fused convolutions with plain ones.

    One image at a time in one thread: the least that a build must do.
    """
    extractor, rules = mini_on(torch.device("cpu"), 224), decode_rules(ModelSettings(model="mini"))
    network, images = extractor._network, [read_image(file, rules)[0] for file in files]
    squares = [torch.from_numpy(extractor.prepare(image)[:224, :224]).permute(2, 0, 1)[None] for image in images]
    parts: dict[str, Callable[[], object]] = {
        "decode": lambda: [read_image(file, rules) for file in files],
        "resize": lambda: [extractor.prepare(image) for image in images],
        "network": lambda: [network.stages(square) for square in squares],
        "plain": lambda: [network._maps(square) for square in squares],
    }
    with torch.inference_mode():
        ms = {name: each / len(files) for name, each in in_turns(parts, rounds=3, clock=time.process_time).items()}
    floor = ms["decode"] + ms["network"]
    described = ", ".join(f"{name} {ms[name]:.1f}" for name in ("decode", "resize", "network"))
    return [
        ("  decoding and network alone, of that time", f"{floor / cpu:.2f}", f"ms of CPU time: {described}"),
        ("  fused convolutions, against plain ones", f"{ms['plain'] / ms['network']:.2f} x as fast", ""),
    ]


def _searches(model: str, device: str, files: list[Path], index: Path) -> list[Row]:
    engine = Engine.open(index, EngineSettings(device=device))  # type: ignore[arg-type]
    engine.search(files[0])
    times = in_turns({mode: lambda mode=mode: engine.search(files[1], mode, candidates=200) for mode in engine.modes})
    bare = Engine.open(index, EngineSettings(device=device, memory=0))  # type: ignore[arg-type]
    forms = {
        "one by one": lambda: [bare.search(file, candidates=200) for file in files[:16]],
        "at once": lambda: list(bare.search_many(files[:16], candidates=200)),
    }
    many = in_turns(forms, rounds=3)
    command = [str(Path(sys.executable).parent / "diffsim-search"), str(files[0]), "-i", str(index), "--paths"]
    new = {
        "cold": [*command, "--device", device],
        "torch": [sys.executable, "-c", "import torch"],
        "help": [command[0], "--help"],
        "typer": [sys.executable, "-c", "import typer"],
    }
    quiet = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    cold = in_turns(
        {
            name: lambda each=each: subprocess.run(each, check=True, capture_output=True, env=quiet)
            for name, each in new.items()
        },
        rounds=3,
    )
    return [
        *((f"{model}: search, 200 candidates, {mode}", f"{ms:.0f} ms", "warm process") for mode, ms in times.items()),
        (
            f"{model}: 16 queries at once, 200 candidates each",
            f"{many['at once'] / 16:.0f} ms a query",
            f"{many['one by one'] / many['at once']:.2f} x as fast as one by one, nothing kept in memory",
        ),
        (
            f"{model}: diffsim-search, a new process",
            f"{cold['cold'] / 1e3:.1f} s",
            f"{cold['cold'] / cold['torch']:.2f} x the time of importing torch",
        ),
        (
            "diffsim-search --help",
            f"{cold['help'] / 1e3:.2f} s",
            f"{cold['help'] / cold['typer']:.2f} x the time of importing typer",
        ),
    ]


def main() -> None:
    """Measure on a CPU, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{2 * QUICK} files in place of {2 * PICTURES}")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        for what, figure, note in embedded("cpu", Path(scratch), QUICK if asked.quick else PICTURES):
            print(f"| {what} | {figure} | {note} |", flush=True)


if __name__ == "__main__":
    main()
