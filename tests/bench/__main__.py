"""`python -m tests.bench FOLDER [--device cuda] [--data IMAGES] [--sd15 WEIGHTS]`: measure and print; write bench.md.

Compare figures of the same run only. Variants are timed in turns, and the table shows medians. Times depend on the
machine and its load; ratios depend on them far less.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from retrieval import BuildSettings, Engine, EngineSettings, build_index
from retrieval.devices.selection import dtype_name
from retrieval.sample_images.pictures import gallery
from retrieval.scoring.aas import QKV
from retrieval.search.tensors.memory_cache import MemoryCache
from tests.bench import build_cost, coarse
from tests.bench.codecs import add_data_option, codec_rows
from tests.bench.gpu import gpu_rows
from tests.bench.growth import growth
from tests.bench.models.embedded import embedded
from tests.bench.pairwise import pairwise
from tests.bench.published import published_loop
from tests.bench.reads import reads
from tests.bench.scale import measure as measure_random
from tests.bench.scale import run_apart
from tests.bench.scale import write as write_random
from tests.bench.sizes import sizes
from tests.bench.timing import Row, device_peak, in_turns, peak_memory
from tests.support.reranking import scores_of
from tests.support.weights.real_size import write_real_size_sd15

SD15_U0 = (2, 8, 256, 160)


def rerank_against_published(device: str) -> list[Row]:
    """Score 100 cached SD 1.5 candidates: this engine against four attention calls a pair, on the same tensors."""
    generator = torch.Generator().manual_seed(0)
    query = QKV(*(torch.randn((1, *SD15_U0), generator=generator).to(device) for _ in range(3)))
    stored = {name: torch.randn((100, *SD15_U0), generator=generator).half().numpy() for name in "qkv"}
    exact = QKV(*(torch.from_numpy(stored[name]).to(device).float() for name in "qkv"))
    # The published code runs in float16 on a GPU, and so does this engine there; a CPU takes float32 of both.
    dtype = torch.float32 if device == "cpu" else torch.float16
    theirs = query.to(device, dtype), exact.to(device, dtype)
    rows = list(range(100))

    def read(wanted: Sequence[int]) -> dict[str, NDArray[np.float16]]:
        return {name: array[wanted[0] : wanted[-1] + 1] for name, array in stored.items()}

    def from_disk() -> NDArray[np.float32]:
        return scores_of([query], [rows], read)[0]

    cache = MemoryCache(2 << 30).of_mode("style", torch.float16)

    def from_memory() -> NDArray[np.float32]:
        return scores_of([query], [rows], read, cache=cache)[0]

    def published() -> object:
        return published_loop(*theirs).cpu().numpy()

    tolerance, expected = 1e-5 if device == "cpu" else 2e-3, published_loop(query, exact).cpu().numpy()
    for found in (from_disk(), from_memory(), from_memory()):  # the second time from memory
        np.testing.assert_allclose(found, expected, atol=tolerance)
    del exact
    times = in_turns({"disk": from_disk, "memory": from_memory, "published": published}, rounds=3)
    return [
        (
            f"the published loop: 100 SD 1.5 candidates, {dtype_name(dtype)}",
            f"{times['published']:.0f} ms",
            f"4 attention calls a pair, on tensors in the memory of {device}",
        ),
        ("re-rank them as they come from the disk, float16", f"{times['disk']:.1f} ms", "own outputs computed"),
        ("  against the published loop", f"{times['published'] / times['disk']:.2f} x", "higher is better"),
        ("re-rank them from the memory of an earlier search", f"{times['memory']:.1f} ms", "own outputs kept"),
        ("  against the published loop", f"{times['published'] / times['memory']:.2f} x", "higher is better"),
    ]


def scale(items: int, folder: Path) -> list[Row]:
    """Open and search the coarse stage of an index of so many random vectors."""
    root = folder / "random.diffsim"
    training = run_apart(write_random, root, items, 1000, True)
    f = run_apart(measure_random, root)
    about = f"{f['items']} vectors of 256 in {f['segments']} segments"
    return [
        (f"{about}: open", f"{f['open_s']:.1f} s", f"of it the catalogue {f['catalogue_s']:.1f} s"),
        ("  200 candidates", f"{f['search_ms']:.1f} ms", f"{f['probes']} of {f['lists']} lists probed"),
        ("  recall of the exact 200", f"{f['recall_at_200']:.4f}", ""),
        (
            "  peak memory over the imports",
            f"{f['memory_mb']:.0f} MB",
            f"{f['memory_mb'] / f['vectors_mb']:.2f} x the vectors' bytes",
        ),
        ("  training, once", f"{training:.0f} s", "one in ten new rows makes it due again"),
    ]


def real_size(device: str, weights: Path, folder: Path) -> list[Row]:
    """Index two images with SD 1.5 at its real size; random weights of tests/support/real_size.py will do."""
    images = folder / "two"
    images.mkdir()
    for number, drawn in zip(range(2), gallery(512), strict=False):
        Image.fromarray(drawn.pixels).save(images / f"{number}.png")
    index = folder / "two.diffsim"
    start = time.perf_counter()
    run = BuildSettings(device=device)  # type: ignore[arg-type]
    report = build_index(images, index, model="sd15", weights=str(weights), encoders={}, run=run)
    build = time.perf_counter() - start
    found = Engine.open(index, EngineSettings(device=device)).search(images / "0.png", exhaustive=True)  # type: ignore[arg-type]
    return [
        (
            "sd15, real size: build of 2 images, three modes",
            f"{build:.1f} s",
            f"loading included; {report.items} images",
        ),
        ("sd15, real size: encode a query", f"{found.timing_ms['embed'] / 1e3:.1f} s", "loading included"),
    ]


def random_weights(folder: Path) -> Path:
    """Write SD 1.5 at its real size: 4.3 GB."""
    write_real_size_sd15(folder / "random-sd15")
    return folder / "random-sd15"


def main() -> None:
    """Run every benchmark and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    add_data_option(parser)
    parser.add_argument("--items", type=int, default=1_000_000, help="random vectors of the coarse stage's part")
    asked = parser.parse_args()
    if asked.sd15 and not (asked.sd15 / "unet").is_dir():
        parser.error(f"{asked.sd15} holds no Stable Diffusion 1.5; tests/support/real_size.py writes a random one")
    torch.set_num_threads(1)
    asked.folder.mkdir(parents=True, exist_ok=True)
    on_gpu = asked.device == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine()
    head = f"torch {torch.__version__} on {name}, device {asked.device}, one thread"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for part in parts(asked, Path(temporary)):
            rows += part()
            save(asked.folder, head, rows)  # after each part, so that a later failure loses nothing
    on_device = f"{device_peak(asked.device) / 1e9:.1f} GB of the device's own" if on_gpu else ""
    rows.append(("peak memory of this run", f"{peak_memory() / 1e9:.1f} GB", on_device))
    print(save(asked.folder, head, rows))


def parts(asked: argparse.Namespace, scratch: Path) -> list[Callable[[], list[Row]]]:
    """Return the benchmarks to run, in order."""
    device, on_gpu = asked.device, asked.device == "cuda"
    weights = asked.sd15 or (random_weights(scratch) if on_gpu else None)
    found: list[Callable[[], list[Row]]] = [
        lambda: rerank_against_published(device),
        lambda: embedded(device, scratch),
        lambda: pairwise(scratch),
        lambda: reads(scratch),
        lambda: growth(scratch),
        lambda: sizes(scratch, device),
        lambda: scale(asked.items, scratch),
        lambda: run_apart(coarse.measure, device),
        build_cost.count_rows,
    ]
    if on_gpu and weights:
        found.append(lambda: gpu_rows(scratch, weights, device))
    if weights:
        found += [lambda: real_size(device, weights, scratch), lambda: build_cost.time_rows(device, weights)]
    return [*found, lambda: codec_rows(device, asked.data, weights)]


def save(folder: Path, head: str, rows: Sequence[Row]) -> str:
    """Write FOLDER/bench.md and bench.json, and return the table."""
    lines = [f"{head}\n", "| what | figure | |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    table = "\n".join(lines)
    (folder / "bench.md").write_text(table + "\n")
    (folder / "bench.json").write_text(json.dumps({"on": head, "rows": rows}, indent=1))
    return table


if __name__ == "__main__":
    main()
