"""Time peers in turns, and keep and print what was measured."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("torch", "numpy", "faiss-cpu", "pillow", "zarr", "hnswlib", "usearch", "lancedb", "qdrant-client", "zarrs"),
    *("tensorstore", "maxsim-cpu", "simplejpeg", "rclip", "transformers"),
)


@dataclass(frozen=True)
class Spread:
    """The median of several runs, with their quartiles, in milliseconds."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up at least one value."""
        low, median, high = (
            statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        )
        return cls(median, low, high, len(values))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def interleaved(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Spread]:
    """Run all variants in turns, one round to warm up and ``rounds`` to measure; return milliseconds by name."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant()
            if number:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: Spread.of(values) for name, values in times.items()}


def installed(package: str) -> str | None:
    """Return a package's version; None: it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def keep(folder: Path, name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], **facts: Any) -> None:
    """Print a table, and write it with all that was measured as FOLDER/NAME.json.

    Args:
        folder: where the file goes.
        name: of the table.
        columns: keys of ``rows`` that are printed.
        rows: a mapping a line, of numbers, texts and spreads.
        facts: what else is to be known, such as sizes.
    """
    found = list(rows)
    about = {
        "command": " ".join(["python -m tests.bench.peers", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {package: number for package in PACKAGES if (number := installed(package))},
        **facts,
    }
    folder.mkdir(parents=True, exist_ok=True)
    plain = [{key: asdict(v) if isinstance(v, Spread) else v for key, v in row.items()} for row in found]
    (folder / f"{name}.json").write_text(json.dumps({"about": about, "rows": plain}, indent=1) + "\n")
    print(f"\n{name}: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in found:
        print("| " + " | ".join(_cell(row.get(column)) for column in columns) + " |", flush=True)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
