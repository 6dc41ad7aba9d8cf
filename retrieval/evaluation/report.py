"""Write measurements as CSV, JSON, Markdown tables, and TREC files for other tools."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from retrieval.errors import UsageError
from retrieval.evaluation.benchmarks.published import COLUMNS, PUBLISHED
from retrieval.evaluation.benchmarks.table import BENCHES
from retrieval.evaluation.measures import JudgedRanking, Measurement
from retrieval.files import check_writable, write_text
from retrieval.metrics.registry import METRICS
from retrieval.version import CREATED_BY

SCHEMA = 1
SUFFIXES = (".csv", ".json", ".md")


def write_report(path: Path, measurements: Sequence[Measurement]) -> None:
    """Write ``measurements`` as ``path``: .csv, .json or .md.

    Raises:
        UsageError: another suffix.
        DiffSimError: the file can't be written.
    """
    check_report(path)
    text = {".csv": as_csv, ".json": as_json, ".md": as_markdown}[path.suffix.lower()](measurements)
    write_text(path, text)


def check_report(path: Path) -> None:
    """Raise the errors of :func:`write_report` before the work that measures."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path.name}: a report's name must end in one of {', '.join(SUFFIXES)}")
    check_writable(path)


def as_csv(measurements: Sequence[Measurement]) -> str:
    """Return a header and a row for each measurement."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [field.name for field in fields(Measurement)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(measurement) for measurement in measurements)
    return stream.getvalue()


def as_json(measurements: Sequence[Measurement]) -> str:
    """Return ``{"schema": 1, "created_by", "measurements": [...]}``."""
    return json.dumps(to_dict(measurements), indent=2, ensure_ascii=False) + "\n"


def to_dict(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Return the JSON values of :func:`as_json`."""
    return {"schema": SCHEMA, "created_by": CREATED_BY, "measurements": [asdict(m) for m in measurements]}


def read_report(path: Path) -> list[Measurement]:
    """Read a report that :func:`as_json` wrote.

    Raises:
        UsageError: a missing file, or one that is not such a report.
    """
    try:
        return [Measurement(**row) for row in json.loads(path.read_text("utf-8"))["measurements"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not a JSON report of a benchmark ({error})", advice="write-report") from error


def as_markdown(measurements: Sequence[Measurement]) -> str:
    """Return a table with a row for each benchmark, part and measure, and a column for each metric; percent."""
    metrics = list(dict.fromkeys(m.metric for m in measurements))
    rows = list(dict.fromkeys((m.bench, m.part, m.measure, m.count) for m in measurements))
    cells = {(m.bench, m.part, m.measure, m.count, m.metric): m for m in measurements}
    lines = ["| benchmark | measure | n | " + " | ".join(metrics) + " |", "|---|---|---:|" + "---:|" * len(metrics)]
    for bench, part, measure, count in rows:
        found = [cells.get((bench, part, measure, count, metric)) for metric in metrics]
        name = f"{bench}: {part}" if part else bench
        lines.append(f"| {name} | {measure} | {count} | " + " | ".join(map(_cell, found)) + " |")
    return "\n".join(lines) + "\n"


def _cell(measurement: Measurement | None) -> str:
    if measurement is None:
        return "-"
    if measurement.measure == "variance":
        return f"{measurement.value:.3e}"
    if measurement.low is None or measurement.high is None:
        return f"{100 * measurement.value:.1f}"
    return f"{100 * measurement.value:.1f} ({100 * measurement.low:.0f}-{100 * measurement.high:.0f})"


def beside_published(measurements: Sequence[Measurement]) -> str:
    """Return the paper's table as Markdown, each number beside our measurement: ``97.40 / 97.15``."""
    mine: dict[tuple[str, str], float] = {}
    for m in measurements:
        known = METRICS.get(m.metric)
        bench = BENCHES.get(m.bench)
        if m.measure == "triplet accuracy" and not m.part and bench is not None and bench.column:
            mine[known.published_as if known and known.published_as else m.metric, bench.column] = 100 * m.value
    others = [row for row, _ in mine if row not in PUBLISHED]
    lines = ["| metric (paper / here) | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for row in [*PUBLISHED, *dict.fromkeys(others)]:
        cells = []
        for column in COLUMNS:
            theirs, ours = PUBLISHED.get(row, {}).get(column), mine.get((row, column))
            shown = "-" if theirs is None else f"{theirs:.2f}"
            cells.append(shown if ours is None else f"{shown} / {ours:.2f}")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def not_in_table(measurements: Sequence[Measurement]) -> list[str]:
    """Return the benchmarks that have no column in :func:`beside_published`."""
    columns = {name for name, bench in BENCHES.items() if bench.column}
    return list(dict.fromkeys(m.bench for m in measurements if m.bench not in columns))


def trec_run(metric: str, rankings: Sequence[JudgedRanking], root: Path) -> str:
    """Return a TREC run with lines ``query Q0 item rank score tag``; names are percent-encoded paths below ``root``."""
    lines = []
    for ranking in rankings:
        query = _name(ranking.query, root)
        for rank, i in enumerate(_order(ranking), 1):
            item, score = _name(ranking.items[i], root), float(ranking.scores[i])
            lines.append(f"{query} Q0 {item} {rank} {score:.9g} {metric}\n")
    return "".join(lines)


def trec_qrels(rankings: Sequence[JudgedRanking], root: Path) -> str:
    """Return TREC judgements with a line ``query 0 item 1`` for every image of the query's group."""
    return "".join(
        f"{_name(ranking.query, root)} 0 {_name(path, root)} 1\n"
        for ranking in rankings
        for path, relevant in zip(ranking.items, ranking.relevant.tolist(), strict=True)
        if relevant
    )


def _order(ranking: JudgedRanking) -> Iterator[int]:
    yield from (-ranking.scores).argsort(kind="stable").tolist()


def _name(path: Path, root: Path) -> str:
    inside = path.relative_to(root) if path.is_relative_to(root) else path
    return quote(inside.as_posix())
