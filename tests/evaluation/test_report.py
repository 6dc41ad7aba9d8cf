"""Reports as CSV, JSON and Markdown, and the paper's table."""

import json
from pathlib import Path

import pytest

from retrieval.errors import UsageError
from retrieval.evaluation.benchmarks.table import BENCHES
from retrieval.evaluation.measures import (
    Measurement,
)
from retrieval.evaluation.report import (
    as_csv,
    beside_published,
    read_report,
    write_report,
)


def test_a_report_is_written_in_three_formats(tmp_path: Path) -> None:
    found = [
        Measurement("sref", "diffsim-s", "triplet accuracy", 0.9715, 2000, low=0.96, high=0.98),
        Measurement("sref", "cells", "triplet accuracy", 0.5, 2000),
    ]
    for suffix in ("csv", "json", "md"):
        write_report(tmp_path / f"r.{suffix}", found)
    assert read_report(tmp_path / "r.json") == found
    assert as_csv(found).splitlines()[1] == "sref,diffsim-s,triplet accuracy,0.9715,2000,,0.96,0.98"
    table = beside_published(found)
    assert "| DiffSim-S SD1.5 | 86.52 | 71.50 | 72.06 | 92.04 | 94.17 | 97.40 / 97.15 | 99.05 |" in table
    assert "| cells | - | - | - | - | - | - / 50.00 | - |" in table
    with pytest.raises(UsageError, match=r"\.csv, \.json, \.md"):
        write_report(tmp_path / "r.txt", found)
    with pytest.raises(UsageError, match="not a JSON report"):
        read_report(tmp_path / "r.csv")


def test_every_metric_of_the_paper_has_a_row_of_published_numbers() -> None:
    from retrieval.evaluation.benchmarks.published import COLUMNS, PUBLISHED
    from retrieval.metrics.registry import METRICS

    assert {m.published_as for m in METRICS.values() if m.published_as} <= set(PUBLISHED)
    assert {bench.column for bench in BENCHES.values() if bench.column} == set(COLUMNS)
    assert PUBLISHED["DiffSim-S SD1.5"]["Sref"] == 97.40
    assert json.dumps({k: dict(v) for k, v in PUBLISHED.items()})
