"""Questions of every kind, and the comparison of their answers with those of one process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retrieval import Box, Engine, Filter, Mask, Query
from retrieval.search.queries.query import QueryInput
from retrieval.search.results import Results
from tests.support.ranking import assert_same_ranking


@dataclass(frozen=True)
class Asked:
    """One search."""

    query: QueryInput
    mode: str | None = None
    where: Filter | None = None
    choices: dict[str, Any] = field(default_factory=dict)

    def of(self, engine: Engine) -> Results:
        return engine.search(self.query, self.mode, where=self.where, **self.choices)


def half_mask() -> Mask:
    white = Image.new("L", (40, 40), 0)
    white.paste(255, (5, 5, 30, 35))
    return Mask(white)


KINDS: dict[str, Callable[[list[Path], int], Asked]] = {
    "plain": lambda files, n: Asked(files[n]),
    "candidates": lambda files, n: Asked(files[n], choices={"candidates": 9, "k": 9}),
    "coarse": lambda files, n: Asked(files[n], choices={"rerank": False, "k": 15}),
    "exhaustive": lambda files, n: Asked(files[n], choices={"exhaustive": True, "k": 40}),
    "mse": lambda files, n: Asked(files[n], choices={"similarity": "mse", "candidates": 12}),
    "no copies": lambda files, n: Asked(files[n], choices={"exclude_copies": True, "candidates": 11, "k": 11}),
    "filter": lambda files, n: Asked(files[n], where=Filter(under=(str(files[n - 9].parent),))),
    "filter and copies": lambda files, n: Asked(
        files[n], where=Filter(glob=("*a*.png",)), choices={"exclude_copies": True, "candidates": 6, "k": 6}
    ),
    "box": lambda files, n: Asked(Query([files[n]], regions=[Box(0.1, 0.2, 0.5, 0.6)]), choices={"candidates": 13}),
    "mask": lambda files, n: Asked(Query([files[n]], regions=[half_mask()]), "instance", choices={"candidates": 13}),
    "board": lambda files, n: Asked(Query([files[n], files[n - 3]], weights=[2.0, 1.0]), choices={"candidates": 14}),
    "closest": lambda files, n: Asked(Query([files[n], files[n - 7]], combine="max"), choices={"candidates": 14}),
    "union": lambda files, n: Asked(Query([files[n], files[n - 1]], combine="union"), choices={"candidates": 14}),
    "away": lambda files, n: Asked(Query([files[n]], minus=[files[n - 11]]), choices={"candidates": 14}),
    "board with a box": lambda files, n: Asked(
        Query([files[n], files[n - 5]], regions=[Box(0.2, 0.2, 0.6, 0.6), None]), choices={"candidates": 14}
    ),
    "csls": lambda files, n: Asked(files[n], choices={"scaling": "csls", "candidates": 15}),
    "two modes": lambda files, n: Asked(files[n], "style", choices={"mode_weights": {"semantic": -1.0}}),
    "percentile": lambda files, n: Asked(files[n], "instance", choices={"min_percentile": 50.0}),
}


def assert_same_answer(found: Results, expected: Results) -> None:
    """The candidates are the same ones; exact scores may differ by their last bits, and so may the order of equals."""
    # An order by several modes stretches rounding: it goes by how rare a score is.
    atol = 1e-6 if all(each.order_key is None for each in expected) else 1e-3
    assert_same_ranking(_keys(found), _keys(expected), atol)
    theirs = {result.id: result for result in expected}
    for mine in found:
        other = theirs.get(mine.id, mine)
        assert (mine.path, mine.coarse_rank, mine.coarse_score) == (other.path, other.coarse_rank, other.coarse_score)
        assert mine.score == pytest.approx(other.score, abs=1e-6)
        assert mine.percentile == pytest.approx(other.percentile, abs=0.5)
        assert (mine.found_box is None) == (other.found_box is None)
    assert _facts(found) == _facts(expected)


def _keys(results: Results) -> list[tuple[int, float]]:
    return [(each.id, each.shown_score if each.order_key is None else each.order_key) for each in results]


def _facts(results: Results) -> dict[str, Any]:
    facts = results.to_dict()
    return {name: value for name, value in facts.items() if name not in ("results", "timing_ms")}
