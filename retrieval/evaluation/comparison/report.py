"""Write a comparison: tables for people, JSON that can be read again, and the picture of quality over cost."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from retrieval.drawing.tradeoff import TradeOff, TradeOffPanel, draw_tradeoffs
from retrieval.errors import UsageError
from retrieval.evaluation.comparison.bootstrap import BoundedMean
from retrieval.evaluation.comparison.results import SCHEMA, SetResult, rounded
from retrieval.evaluation.comparison.summary import COSTS, ModeRow, SetRow, mode_rows, set_rows
from retrieval.files import check_writable, write_text
from retrieval.text import human_bytes
from retrieval.version import CREATED_BY

SUFFIXES = (".json", ".md")
_MODE_COLUMNS = (
    "mode", "model", "sets", "exact", "coarse", "exact - coarse", "grey", "build, images/s", "index, an image",
    "search, ms", "peak, MB", "best",
)  # fmt: skip
_SET_COLUMNS = ("set", "measure", "queries", "mode", "model", "exact", "coarse", "exact - coarse")


def check_file(path: Path) -> None:
    """Raise the errors of :func:`write_file` before the work that measures."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path.name}: a report of a comparison must end in one of {', '.join(SUFFIXES)}")
    check_writable(path)


def write_file(path: Path, results: Sequence[SetResult], cost: str) -> None:
    """Write ``results`` as ``path``: .json, which holds everything measured, or .md, the tables.

    Raises:
        UsageError: another suffix.
        DiffSimError: the file can't be written.
    """
    check_file(path)
    is_json = path.suffix.lower() == ".json"
    text = json.dumps(to_dict(results, cost), ensure_ascii=False) + "\n" if is_json else as_markdown(results, cost)
    write_text(path, text)


def to_dict(results: Sequence[SetResult], cost: str) -> dict[str, Any]:
    """Return JSON values: ``results`` as measured, and the rows of both tables, which follow from them."""
    return {
        "schema": SCHEMA,
        "created_by": CREATED_BY,
        "cost": cost,
        "modes": [rounded(asdict(row)) for row in mode_rows(results, cost)],
        "sets": [rounded(asdict(row)) for row in set_rows(results)],
        "results": [rounded(asdict(result)) for result in results],
    }


def as_markdown(results: Sequence[SetResult], cost: str) -> str:
    """Return two tables: a row for each mode and model, and one for each set, mode and model. Qualities in percent."""
    modes = _table(_MODE_COLUMNS, [_mode_cells(row) for row in mode_rows(results, cost)])
    sets = _table(_SET_COLUMNS, [_set_cells(row) for row in set_rows(results)])
    return f"{modes}\n{sets}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns line up in a terminal."""
    widths = [max(len(row[column]) for row in (columns, *rows)) for column in range(len(columns))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows)]
    ruler = "|".join("-" * (width + 2) for width in widths)
    return "".join(f"{line}\n" for line in (f"| {lines[0]} |", f"|{ruler}|", *(f"| {line} |" for line in lines[1:])))


def _mode_cells(row: ModeRow) -> tuple[str, ...]:
    cost, quality = row.cost, row.quality
    number = len(row.sets)
    return (
        row.mode,
        row.model,
        str(number) if number == row.of_sets else f"{number} of {row.of_sets}",
        _percent(quality.exact),
        _percent(quality.coarse),
        _percent(quality.gain, signed=True),
        "-" if row.grey is None else _percent(row.grey),
        f"{cost.images_per_s:.3g}",
        human_bytes(cost.bytes_an_image),
        f"{cost.search_ms[row.mode]:.3g} ({cost.candidates})",
        f"{cost.peak_mb:.0f}",
        "*" if row.best else "",
    )


def _set_cells(row: SetRow) -> tuple[str, ...]:
    quality = row.quality
    name = f"{row.set}, grey" if row.grey else row.set
    means = (_percent(quality.exact), _percent(quality.coarse), _percent(quality.gain, signed=True))
    return (name, row.measure, str(row.queries), row.mode, row.model, *means)


def _percent(mean: BoundedMean, signed: bool = False) -> str:
    form = "+.1f" if signed else ".1f"
    value = f"{100 * mean.value:{form}}"
    if mean.low is None or mean.high is None:
        return value
    return f"{value} ({100 * mean.low:{form}} to {100 * mean.high:{form}})"


def draw_comparison(results: Sequence[SetResult], cost: str) -> Image.Image:
    """Return the picture of quality over the cost called ``cost``, a panel for each mode.

    Raises:
        UsageError: nothing was measured, or an unknown cost.
    """
    rows = mode_rows(results, cost)
    if not rows:
        raise UsageError("there is nothing to draw: no set was measured with its cost")
    panels = [
        TradeOffPanel(mode, [_mark(row, cost) for row in rows if row.mode == mode])
        for mode in dict.fromkeys(row.mode for row in rows)
    ]
    measures = list(dict.fromkeys(result.measure for result in results))
    title = "quality over cost: dots are exact rankings with 95 % intervals, rings the coarse stage"
    return draw_tradeoffs(panels, title, COSTS[cost].title, f"{' or '.join(measures)}, %")


def _mark(row: ModeRow, cost: str) -> TradeOff:
    exact = row.quality.exact
    spent = COSTS[cost].of(row.cost, row.mode)
    return TradeOff(row.model, spent, exact.value, exact.low, exact.high, row.quality.coarse.value, row.best)
