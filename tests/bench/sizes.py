"""Measure an index with tensors as it grows: opening, searching, updating, verifying, compacting.

`python -m tests.bench.sizes FOLDER [--sizes 1000,10000,100000]` prints the table alone, with slopes. The indexes come
from :mod:`tests.bench.enlarged`. A separate process takes each measurement. Slopes of long operations are those of
processor time, because a busy disk or processor bends the others.
"""

import argparse
import json
import shutil
import statistics
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from retrieval import BuildSettings, Engine, EngineSettings, build_index
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.repairing import verify
from retrieval.types import DeviceName
from tests.bench import enlarged
from tests.bench.reads import IN_MEMORY, NOT_MEASURED, can_forget, forget
from tests.bench.scale import run_apart
from tests.bench.timing import Figures, Row, cost, peak_memory, slope, timed

SIZES = (1_000, 10_000, 100_000)
EXHAUSTIVE = 10_000  # images at most
SEARCHES = 11
CANDIDATES = 200
PARTS = ("embed", "coarse", "read", "rerank")
LONG = {
    "unchanged": "build with nothing new",
    "add": "build with 100 new images",
    "verify": "verify",
    "compact": "compact",
}
UNKNOWN = (NOT_MEASURED, IN_MEMORY)


def searching(index: Path, queries: Sequence[Path], device: DeviceName) -> Figures:
    """Open an index and search it without a memory cache; times in seconds."""
    opening, engine = timed(lambda: Engine.open(index, EngineSettings(device=device, memory=0)))
    pictures = cycle(queries)
    first, _ = timed(lambda: engine.search(next(pictures), candidates=CANDIDATES))
    before = _bytes_read()
    warm = [timed(lambda: engine.search(next(pictures), candidates=CANDIDATES)) for _ in range(SEARCHES)]
    read = (_bytes_read() - before) / SEARCHES
    cold = []
    for _ in range(SEARCHES // 2 if can_forget(index) else 0):
        forget(index / "attention")
        cold.append(timed(lambda: engine.search(next(pictures), candidates=CANDIDATES))[0])
    parts = {name: statistics.median(found.timing_ms[name] for _, found in warm) / 1e3 for name in PARTS}
    return {
        "open": opening,
        "first": first,
        "warm": statistics.median(seconds for seconds, _ in warm),
        "bytes": read,
        "peak": peak_memory(),
        **parts,
        **({"cold": statistics.median(cold)} if cold else {}),
    }


def _bytes_read() -> int:
    """Return how many bytes this process has read from files so far, from the page cache or not (Linux)."""
    lines = Path("/proc/self/io").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


def exhaustive(index: Path, query: Path, device: DeviceName) -> float:
    """Return the images a second that an exhaustive search scores, in a process that has searched before."""
    engine = Engine.open(index, EngineSettings(device=device))
    engine.search(query)
    seconds, _ = timed(lambda: engine.search(query, exhaustive=True))
    return len(engine) / seconds


def updating(name: str, source: Path, index: Path, new: int, device: DeviceName) -> Figures:
    """Bring an index up to date with a folder of so many new images."""
    figures, report = cost(name, lambda: build_index(source, index, run=BuildSettings(device=device)))
    assert report.added == new
    return {**figures, f"{name}_peak": peak_memory()}


def verifying(index: Path) -> Figures:
    """Read everything back."""
    figures, damages = cost("verify", lambda: verify(index))
    assert not damages
    return {**figures, "verify_peak": peak_memory()}


def compacting(index: Path) -> Figures:
    """Merge all segments."""
    figures, _ = cost("compact", lambda: compact(index, now=True))
    return {**figures, "compact_peak": peak_memory()}


def measure(folder: Path, items: int, device: DeviceName, codec: str | None = None) -> Figures:
    """Write an index of ``items`` items into ``folder``, and measure it."""
    index = run_apart(enlarged.write, folder, items, "cells", codec)
    new = sorted((folder / "new").iterdir())
    found: Figures = run_apart(searching, index, new, device)
    if items <= EXHAUSTIVE:
        found["exhaustive"] = run_apart(exhaustive, index, new[0], device)
    found |= run_apart(updating, "unchanged", folder / "photos", index, 0, device)
    found |= run_apart(verifying, index)
    found |= run_apart(updating, "add", folder / "new", index, len(new), device)
    found |= run_apart(compacting, index)
    return found


def measured(folder: Path, device: DeviceName, wanted: Sequence[int], codec: str | None = None) -> list[Figures]:
    """Measure an index of each size, one after another; print the figures of each as they are known."""
    found = []
    for items in wanted:
        place = folder / f"grown-{items}"
        found.append(measure(place, items, device, codec))
        print(json.dumps({"items": items, **found[-1]}), flush=True)
        shutil.rmtree(place)
    return found


def sizes(folder: Path, device: DeviceName, wanted: Sequence[int] = SIZES, codec: str | None = None) -> list[Row]:
    """Measure an index of each size; one row for each figure."""
    found = measured(folder, device, wanted, codec)

    def row(what: str, name: str, unit: str, scale: float, digits: int, note: str = "") -> Row:
        figures = ", ".join(f"{scale * each[name]:.{digits}f}" for each in found if name in each)
        growth = slope(found, wanted, f"{name}_cpu") or slope(found, wanted, name)
        return (what, f"{figures} {unit}", ", ".join(filter(None, (growth, note)))) if figures else (what, *UNKNOWN)

    names = ", ".join(f"{items // 1000}k" if items >= 1000 else str(items) for items in wanted)
    parts = ", ".join(f"{name} {1e3 * found[-1][name]:.0f}" for name in PARTS)
    return [
        row(f"cells, {names} images with tensors of one mode: open", "open", "ms", 1e3, 0),
        row("  first search of a process", "first", "ms", 1e3, 0, "loads model and coarse stage"),
        row("  a search with 200 candidates", "warm", "ms", 1e3, 0, f"the last: {parts}; nothing kept in memory"),
        row("  the same, no tensors in the page cache", "cold", "ms", 1e3, 0),
        row("  bytes read by a search", "bytes", "MB", 1e-6, 1),
        row("  peak memory of a process that searches", "peak", "MB", 1e-6, 0),
        row("  exhaustive search", "exhaustive", "images/s", 1, 0, f"up to {EXHAUSTIVE} images"),
        *(
            each
            for name, what in LONG.items()
            for each in (
                row(f"  {what}", name, "s", 1, 2),
                row("    processor time", f"{name}_cpu", "s", 1, 2),
                row("    peak memory", f"{name}_peak", "MB", 1e-6, 0),
            )
        ),
    ]


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sizes", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=lambda text: [int(each) for each in text.split(",")], default=SIZES)
    parser.add_argument("--codec", help="of tensors; the model's own by default")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for row in sizes(asked.folder, "cpu", asked.sizes, asked.codec):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
