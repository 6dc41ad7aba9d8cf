"""Measure how the memory of a build with the embedded model grows with the number of small JPEG files."""

from pathlib import Path

from PIL import Image

from retrieval import BuildSettings, Engine, EngineSettings, build_index
from retrieval.sample_images.pictures import gallery
from tests.bench.scale import run_apart
from tests.bench.timing import Row, in_turns, peak_memory

SIZES = (1000, 5000)
DRAWN = 100


def build(images: Path, index: Path) -> tuple[float, float]:
    """Index a folder; return images a second and this process's peak memory in MB."""
    report = build_index(images, index, model="cells", modes=["style"], run=BuildSettings(device="cpu"))
    return report.added / report.seconds, peak_memory() / 1e6


def warm_search(index: Path, query: Path) -> float:
    """Return the median milliseconds of a search of 200 candidates in a process that has searched before."""
    engine = Engine.open(index, EngineSettings(device="cpu"))
    return in_turns({"search": lambda: engine.search(query, candidates=200)}, rounds=5)["search"]


def _numbered(jpeg: bytes, number: int) -> bytes:
    """Add a comment to a JPEG file: equal files would be computed once and copied."""
    text = f"{number:05d}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


def growth(folder: Path) -> list[Row]:
    """Build and search indexes of :data:`SIZES` images, every one in a process of its own."""
    source = folder / "drawn"
    source.mkdir()
    for number, drawn in zip(range(DRAWN), gallery(256), strict=False):
        Image.fromarray(drawn.pixels).save(source / f"{number:03d}.jpg")
    files, rows, peaks = sorted(source.iterdir()), [], []
    for size in SIZES:
        images, index = folder / f"{size}", folder / f"{size}.diffsim"
        images.mkdir()
        for number in range(size):
            (images / f"{number:05d}.jpg").write_bytes(_numbered(files[number % DRAWN].read_bytes(), number))
        speed, peak = run_apart(build, images, index)
        milliseconds = run_apart(warm_search, index, files[0])
        peaks.append(peak)
        rows.append(
            (
                f"cells: {size} images of 256 px, one mode",
                f"{speed:.0f} images/s",
                f"peak memory {peak:.0f} MB; a search {milliseconds:.0f} ms",
            )
        )
    return [*rows, (f"  peak memory, {SIZES[-1]} against {SIZES[0]} images", f"{peaks[-1] / peaks[0]:.3f} x", "")]
