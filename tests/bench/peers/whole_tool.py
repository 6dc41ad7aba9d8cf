"""The whole tool beside rclip: index drawn photographs, search one, index again with nothing new.

rclip's weights can't be had here, so both tools run the same network, EfficientNet-Lite0: rclip gets the mean of its
last map as its vector. rclip keeps one vector an image; this project keeps tensors of four modes and scores exactly.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval import Engine
from retrieval.models.mini.attention import mini_on
from tests.bench.peers.building import build_without_percentiles, write_photos
from tests.bench.peers.tables import Spread, installed, keep

COLUMNS = ("tool", "index, s", "images/s", "again, nothing new, s", "warm search, ms", "kB an image")
SEARCHES = 20


def _ours(photos: Path, files: list[Path], work: Path) -> dict[str, Any]:
    from retrieval import BuildSettings, build_index

    index = work / "photos.diffsim"
    seconds = build_without_percentiles(photos, index)
    start = time.perf_counter()
    build_index(photos, index, run=BuildSettings(device="cpu"))
    again = time.perf_counter() - start
    engine = Engine.open(index)
    size = sum(path.stat().st_size for path in index.rglob("*") if path.is_file())
    row = _row("diffsim-retrieval, four modes, exact scores", seconds, again, len(files), size)
    row["warm search, ms"] = _searches(lambda file: engine.search(file, k=10), files)
    row["note"] = "the second build includes the percentiles of four modes"
    return row


def _rclip(photos: Path, files: list[Path], work: Path) -> dict[str, Any]:
    from rclip.db import DB
    from rclip.main import RClip
    from rclip.model import Model

    network = mini_on(torch.device("cpu"), 224)._network

    class SameNetwork(Model):  # type: ignore[misc]
        """rclip's model with our network in its place."""

        def _run_visual(self, batch: NDArray[np.float32], *, for_indexing: bool = False) -> NDArray[np.float32]:
            pixels = torch.from_numpy(batch * 0.27 + 0.45).clamp(0, 1).mul(255).to(torch.uint8)
            with torch.inference_mode():  # one image at a time, as our builds do, because that is the fastest
                found = [network.stages(image[None])[6].mean(dim=(2, 3)) for image in pixels]
            vectors: NDArray[np.float32] = np.pad(torch.cat(found).numpy(), ((0, 0), (0, self.VECTOR_SIZE - 320)))
            return vectors

    database = DB(work / "rclip.sqlite3")
    tool = RClip(SameNetwork(), database, indexing_batch_size=8, exclude_dirs=None)
    start = time.perf_counter()
    tool.ensure_index(str(photos))
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    tool.ensure_index(str(photos))
    again = time.perf_counter() - start
    size = os.path.getsize(work / "rclip.sqlite3")
    row = _row(f"rclip {installed('rclip')}, one vector", seconds, again, len(files), size)
    row["warm search, ms"] = _searches(lambda file: tool.search(str(file), str(photos), 10), files)
    tool.close()
    database.close()
    return row


def _row(tool: str, seconds: float, again: float, images: int, size: int) -> dict[str, Any]:
    speed = f"{images / seconds:.1f}"
    return {
        "tool": tool,
        "index, s": seconds,
        "images/s": speed,
        "again, nothing new, s": again,
        "kB an image": size / 1e3 / images,
    }


def _searches(search: Any, files: list[Path]) -> Spread:
    search(files[0])
    times = []
    for file in files[1 : SEARCHES + 1]:
        start = time.perf_counter()
        search(file)
        times.append(1e3 * (time.perf_counter() - start))
    return Spread.of(times)


def run(quick: bool, out: Path, work: Path) -> None:
    """Measure both tools once each: an index of thousands of images evens its own spread out."""
    photos = work / "photos"
    files = write_photos(photos, 48 if quick else 5000)
    rows = [_ours(photos, files, work)]
    if installed("rclip"):
        rows.append(_rclip(photos, files, work))
    keep(out, "tool", COLUMNS, rows, images=len(files), threads=torch.get_num_threads(), weights="the same network")
