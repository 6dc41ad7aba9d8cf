"""Summarise a comparison: one row for each set, mode and model, and one for each mode and model over its sets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from retrieval.errors import UsageError
from retrieval.evaluation.comparison.bootstrap import BoundedMean, differences, mean_of_sets
from retrieval.evaluation.comparison.results import JudgedMode, MeasuredCost, SetResult


@dataclass(frozen=True)
class CostKind:
    """A cost that models are compared by; less is better."""

    title: str  # with its unit, for a table and an axis
    of: Callable[[MeasuredCost, str], float]  # of a mode


COSTS: Mapping[str, CostKind] = MappingProxyType(
    {
        "build": CostKind("build, ms an image", lambda cost, mode: 1000 / cost.images_per_s),
        "bytes": CostKind("index, bytes an image", lambda cost, mode: cost.bytes_an_image),
        "search": CostKind("warm search, ms", lambda cost, mode: cost.search_ms[mode]),
        "memory": CostKind("peak memory, MB", lambda cost, mode: cost.peak_mb),
    }
)


@dataclass(frozen=True)
class Quality:
    """The exact ranking, the coarse stage, and their paired difference: exact minus coarse."""

    exact: BoundedMean
    coarse: BoundedMean
    gain: BoundedMean


@dataclass(frozen=True)
class SetRow:
    """One model in one mode on one set."""

    set: str
    measure: str
    grey: bool
    queries: int
    mode: str
    model: str
    quality: Quality


@dataclass(frozen=True)
class ModeRow:
    """One model in one mode: mean quality over the mode's sets, and costs on the set with the most images."""

    mode: str
    model: str
    sets: tuple[str, ...]  # those that the means are over
    of_sets: int  # how many sets the mode has; a row with fewer takes no part in the Pareto front
    quality: Quality
    grey: BoundedMean | None  # the exact ranking of greyscale copies, over the same sets
    cost: MeasuredCost
    best: bool = False  # on the Pareto front


def check_cost(name: str) -> None:
    """Raise a UsageError that lists the known costs unless ``name`` is one."""
    if name not in COSTS:
        raise UsageError(f"unknown cost '{name}'; known: {', '.join(COSTS)}")


def sets_of_mode(mode: str, names: Sequence[str]) -> list[str]:
    """Return the sets that count for a mode: those named ``MODE_...`` or ``MODE-...``; all if there are none."""
    own = [name for name in names if name == mode or name.startswith((f"{mode}_", f"{mode}-"))]
    return own or list(names)


def quality_of(judged: Sequence[JudgedMode]) -> Quality:
    """Return the mean quality over sets of equal weight."""
    exact, coarse = [each.of_exact for each in judged], [each.of_coarse for each in judged]
    gain = [differences(a, b) for a, b in zip(exact, coarse, strict=True)]
    return Quality(mean_of_sets(exact), mean_of_sets(coarse), mean_of_sets(gain))


def set_rows(results: Sequence[SetResult]) -> list[SetRow]:
    """Return a row for each set, mode and model; modes and models in the order of the results."""
    rows = [
        SetRow(each.set, each.measure, each.grey, sum(judged.counts), mode, each.model, quality_of([judged]))
        for each in results
        for mode, judged in each.modes.items()
    ]
    sets, modes = (list(dict.fromkeys(getattr(row, field) for row in rows)) for field in ("set", "mode"))
    return sorted(rows, key=lambda row: (sets.index(row.set), row.grey, modes.index(row.mode)))


def mode_rows(results: Sequence[SetResult], cost: str) -> list[ModeRow]:
    """Return a row for each mode and model, with the Pareto front of quality against the cost called ``cost``.

    Raises:
        UsageError: an unknown cost.
    """
    check_cost(cost)
    names = list(dict.fromkeys(each.set for each in results))
    modes = dict.fromkeys(mode for each in results for mode in each.modes)
    return [row for mode in modes for row in _with_front(list(_rows_of(mode, names, results)), cost)]


def _rows_of(mode: str, names: Sequence[str], results: Sequence[SetResult]) -> Iterator[ModeRow]:
    counted = sets_of_mode(mode, names)
    for model in dict.fromkeys(each.model for each in results):
        own = [each for each in results if each.model == model and each.set in counted and mode in each.modes]
        plain = {each.set: each for each in own if not each.grey}
        grey = [each.modes[mode].of_exact for each in own if each.grey and each.set in plain]
        largest = max((each for each in plain.values() if each.cost), key=lambda each: each.images, default=None)
        if largest is None or largest.cost is None:
            continue
        yield ModeRow(
            mode,
            model,
            tuple(plain),
            len(counted),
            quality_of([each.modes[mode] for each in plain.values()]),
            mean_of_sets(grey) if len(grey) == len(plain) else None,
            largest.cost,
        )


def undominated(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return, for each (quality, cost), whether no other point is at least as good in both and better in one."""
    return [
        not any(q >= quality and c <= cost and (q > quality or c < cost) for q, c in points) for quality, cost in points
    ]


def _with_front(rows: Sequence[ModeRow], cost: str) -> list[ModeRow]:
    whole = [row for row in rows if len(row.sets) == row.of_sets]
    front = undominated([(row.quality.exact.value, COSTS[cost].of(row.cost, row.mode)) for row in whole])
    best = {row.model for row, is_best in zip(whole, front, strict=True) if is_best}
    return [replace(row, best=row.model in best) for row in rows]
