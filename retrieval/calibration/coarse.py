"""How exact scores follow the cosines of coarse vectors, among random pairs."""

import numpy as np
from numpy.typing import NDArray

from index_store.calibration.record import MOST_SLOPE
from index_store.reader import IndexReader
from index_store.vectors.storage import normalised
from retrieval.calibration.sampling import ScoredPairs
from retrieval.encoding.coarse_encoders import encoders_of_mode
from retrieval.encoding.recipe import stored_recipe
from retrieval.models.registry import describe_extractor

LEAST_PAIRS = 64


def slope_of(reader: IndexReader, mode: str, pairs: ScoredPairs) -> float | None:
    """Return the slope of the line that predicts scores from cosines, 0 to 10; None if too few pairs have vectors."""
    known = describe_extractor(stored_recipe(reader, reader.layout.root).settings.model).modes
    encoders = encoders_of_mode(reader, known, mode)
    held = np.ones(len(pairs.scores), bool)
    for name in encoders:
        has = reader.has_vector(name)
        held &= has[pairs.first] & has[pairs.second]
    if not encoders or held.sum() < LEAST_PAIRS:
        return None
    first, second = pairs.first[held], pairs.second[held]
    cosines = np.mean([_cosines(reader, name, first, second) for name in encoders], axis=0)
    spread = float(np.var(cosines))
    if not spread > 1e-12:  # also where a damaged vector is not finite
        return None
    slope = float(np.mean((cosines - cosines.mean()) * pairs.scores[held])) / spread
    return round(min(max(slope, 0.0), MOST_SLOPE), 6)


def _cosines(
    reader: IndexReader, encoder: str, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float64]:
    rows, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    vectors = normalised(reader.vector_reader.of_rows(encoder, rows))
    one, other = vectors[places[: len(first)]], vectors[places[len(first) :]]
    found: NDArray[np.float64] = (one * other).sum(axis=1).astype(np.float64)
    return found
