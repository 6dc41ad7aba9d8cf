"""The results of a comparison, kept as JSON: totals by group, from which every mean and interval is computed again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import UsageError
from retrieval.evaluation.comparison.bootstrap import GroupTotals

SCHEMA = 1
DIGITS = 5  # of a kept number


@dataclass(frozen=True)
class JudgedMode:
    """One mode on one set: judgements by group, and their sums for the exact ranking and for the coarse stage."""

    counts: Sequence[int]
    exact: Sequence[float]
    coarse: Sequence[float]

    @property
    def of_exact(self) -> GroupTotals:
        """The totals of the exact ranking."""
        return GroupTotals(self.counts, self.exact)

    @property
    def of_coarse(self) -> GroupTotals:
        """The totals of the encoders' fused ranking."""
        return GroupTotals(self.counts, self.coarse)


@dataclass(frozen=True)
class MeasuredCost:
    """The cost of one model on one set, with an index of all compared modes and the default codec."""

    images_per_s: float  # of the build, without the loading of the model
    bytes_an_image: float  # on disk
    candidates: int  # of the timed searches; no more than there are images
    search_ms: Mapping[str, float]  # by mode: the median of warm searches, one query at a time
    peak_mb: float  # main memory of the process, 10^6 bytes


@dataclass(frozen=True)
class SetResult:
    """One model on one set."""

    model: str
    set: str
    grey: bool  # whether the images to find were greyscale copies
    measure: str  # "mAP" or "accuracy"
    images: int
    queries: int
    modes: Mapping[str, JudgedMode]
    cost: MeasuredCost | None  # None for greyscale copies: they cost the same
    identity: str  # of the files, labels and settings: a run that goes on measures a set again if it has changed

    @property
    def key(self) -> tuple[str, str, bool]:
        """The place of the result in a comparison."""
        return self.model, self.set, self.grey


def rounded(value: Any) -> Any:
    """Return JSON values with :data:`DIGITS` significant digits of each fraction."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list | tuple) else value


def read_results(file: Path) -> list[SetResult]:
    """Read the results that a comparison wrote.

    Raises:
        UsageError: a missing file, or one that is not such a report.
    """
    try:
        return [_read(values) for values in json.loads(file.read_text("utf-8"))["results"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} is not a JSON report of a comparison ({error})", advice="write-comparison") from error


def _read(values: Mapping[str, Any]) -> SetResult:
    modes = {mode: JudgedMode(**judged) for mode, judged in values["modes"].items()}
    for judged in modes.values():
        if not len(judged.counts) == len(judged.exact) == len(judged.coarse) > 0 or min(judged.counts) < 1:
            raise ValueError("counts and sums of groups do not fit together")
    cost = None if values["cost"] is None else MeasuredCost(**values["cost"])
    return SetResult(**{**values, "modes": modes, "cost": cost})


def merged(results: Sequence[SetResult], newer: Sequence[SetResult]) -> list[SetResult]:
    """Return all results, of equal keys the ``newer`` ones."""
    return list({result.key: result for result in (*results, *newer)}.values())
