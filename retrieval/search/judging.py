"""Exact scores on the scale of random pairs: percentiles, and the order by several modes at once.

Scores of two modes can't be compared, but how rare they are can: the *evidence* E of a score is the normal quantile of
its percentile, 0 for a score like half of all random pairs, and about 3 for one in a thousand. The order goes by

    E(main) + sum over wanted modes of w E(mode) - sum over unwanted modes of 3 |w| max(0, z(mode) - 2)

where z says by how many standard deviations a candidate is more alike in the mode than candidates of its evidence in
the main mode usually are. Modes agree in part, so taking off the evidence itself would push back what is wanted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.calibration.percentiles import Percentiles, one_in
from retrieval.scoring.aas import bounded
from retrieval.search.results import ModeScore
from retrieval.search.tensors.candidate_tensors import CandidateScores

UNLIKE_FROM = 2.0  # standard deviations from which a candidate counts as alike in an unwanted mode
UNLIKE_STRENGTH = 3.0  # of each further one, in units of evidence


@dataclass(frozen=True)
class Judged:
    """The scores of one question's candidates in one mode, and how rare they are."""

    scores: NDArray[np.float32]
    shares: NDArray[np.float64]  # of random pairs that score at least so much
    evidence: NDArray[np.float64]

    @property
    def percentiles(self) -> NDArray[np.float64]:
        """How many of 100 random pairs score less."""
        return 100 * (1 - self.shares)

    def at(self, position: int) -> tuple[float, int]:
        """Return a candidate's percentile, and N of "one in N random pairs scores at least so much"."""
        return round(float(self.percentiles[position]), 4), one_in(float(self.shares[position]))


@dataclass(frozen=True)
class Judgement:
    """The candidates of one question, judged in its mode and in others."""

    main: Judged
    others: Mapping[str, Judged] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)  # of the others; below 0: candidates unlike the query

    @property
    def keys(self) -> NDArray[np.float64] | None:
        """What the order goes by, higher first; None: by the score of the mode itself."""
        if not self.others:
            return None
        keys = main = self.main.evidence
        for mode, weight in self.weights.items():
            found = self.others[mode].evidence
            if weight < 0:
                found = UNLIKE_STRENGTH * np.maximum(0, _standing_out(main, found) - UNLIKE_FROM)
            keys = keys + weight * found
        return keys

    def at(self, position: int) -> dict[str, Any]:
        """Return the fields of :class:`Result` that say how rare a candidate's scores are."""
        percentile, one_in = self.main.at(position)
        others = tuple(
            ModeScore(mode, bounded(float(found.scores[position])), *found.at(position))
            for mode, found in self.others.items()
        )
        return {"percentile": percentile, "one_in": one_in, "other_modes": others}


def judge(
    percentiles_of: Callable[[str], Percentiles | None],
    mode: str,
    scored: Mapping[str, CandidateScores],
    weights: Mapping[str, float],
) -> Judgement | None:
    """Judge the candidates of one question; None if there are no percentiles of a mode.

    Args:
        percentiles_of: returns those of a mode.
        mode: of the search.
        scored: the candidates' cosine scores of this mode and of those in ``weights``.
        weights: of the other modes.
    """
    judged: dict[str, Judged] = {}
    for name in (mode, *weights):
        known = percentiles_of(name)
        if known is None:
            return None
        scores = scored[name].scores
        judged[name] = Judged(scores, known.shares(scores), known.evidence(scores))
    return Judgement(judged.pop(mode), judged, weights)


def _standing_out(main: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how many standard deviations ``other`` lies above its least-squares line over ``main``."""
    if len(main) < 3:
        return np.zeros(len(main))
    centred = main - main.mean()
    slope = float(centred @ other) / max(float(centred @ centred), 1e-12)
    residuals: NDArray[np.float64] = other - other.mean() - slope * centred
    return residuals / max(float(residuals.std()), 1e-6)


def merged(main: CandidateScores, others: Mapping[str, CandidateScores]) -> CandidateScores:
    """Return the scores of the first mode, with the work of all and without candidates that one of them lacks."""
    every = (main, *others.values())
    timing = {part: sum(each.timing_ms.get(part, 0.0) for each in every) for part in main.timing_ms}
    is_scored: NDArray[np.bool_] = np.logical_and.reduce([each.is_scored for each in every])
    return replace(main, is_scored=is_scored, timing_ms=timing)
