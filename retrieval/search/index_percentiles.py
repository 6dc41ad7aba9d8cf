"""The percentiles of an opened index's scores, by mode, and how they are described."""

from typing import Any

from index_store.reader import IndexReader
from retrieval.calibration.percentiles import Percentiles, one_in
from retrieval.calibration.upkeep import LEAST_IMAGES, Calibration, read_calibration
from retrieval.errors import UsageError

EXAMPLE = 0.97  # the score that a description explains
DESCRIBED = (50.0, 90.0, 99.0, 99.9)  # percentiles whose scores a description has


class IndexPercentiles:
    """Reads the scores of random pairs when a mode is first asked for; safe in many threads."""

    def __init__(self, reader: IndexReader) -> None:
        """Take an opened index; nothing is read yet."""
        self._reader = reader
        self._read: dict[str, Calibration | None] = {}

    def of(self, mode: str) -> Percentiles | None:
        """Return the percentiles of a mode; None if the index has none."""
        found = self._of(mode)
        return None if found is None else found.percentiles

    def check(self, mode: str, percentile: float) -> None:
        """Raise UsageError if no score of a mode can reach ``percentile``."""
        known = self.required(mode)
        if percentile > known.most:
            raise UsageError(
                f"percentiles of {mode} end at {known.most:.2f} in this index, where one of {known.pairs} random pairs "
                f"is left: {percentile} is out of reach"
            )

    def slope(self, mode: str) -> float | None:
        """Return by how much exact scores rise with the cosines of coarse vectors; None if the index can't tell."""
        found = self._of(mode)
        return None if found is None else found.slope

    def _of(self, mode: str) -> Calibration | None:
        if mode not in self._read:  # two threads may both read: the values are alike
            self._read[mode] = read_calibration(self._reader, mode)
        return self._read[mode]

    def required(self, mode: str) -> Percentiles:
        """Return the percentiles of a mode.

        Raises:
            UsageError: the index has none.
        """
        found = self.of(mode)
        if found is None:
            raise UsageError(
                f"{self._reader.layout.root} has no percentiles of {mode}: it needs the stored tensors of "
                f"{LEAST_IMAGES} images on this machine",
                advice="fill-for-percentiles",
            )
        return found


def describe_percentiles(reader: IndexReader) -> dict[str, Any]:
    """Return by mode what scores are worth in an index, as JSON values; modes without percentiles are missing."""
    every = {mode: read_calibration(reader, mode) for mode in reader.generation.modes}
    return {mode: _described(found.percentiles) for mode, found in every.items() if found is not None}


def _described(found: Percentiles) -> dict[str, Any]:
    share = float(found.shares(EXAMPLE))
    return {
        "pairs": found.pairs,
        "most": round(found.most, 4),
        "score_at": {f"{percentile:g}": round(found.score_at(percentile), 4) for percentile in DESCRIBED},
        "example": {"score": EXAMPLE, "percentile": round(100 * (1 - share), 4), "one_in": one_in(share)},
    }
