"""A map of an index: each image's place in a plane, from the vectors that choose candidates."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.errors import UsageError

ROWS = 8192  # of vectors that are widened to float64 at a time
MOST = 16_384  # rows that the axes are computed from, evenly spread: more move a map by less than a point


def project(reader: IndexReader, encoders: Sequence[str]) -> NDArray[np.float32]:
    """Return the places of all items by the first two principal components, float32 ``[len(reader), 2]`` in [0, 1].

    The components are those of :data:`MOST` items at most, evenly spread over the index.
    The vectors of several encoders stand side by side. Each axis is stretched to [0, 1] between its 1st and 99th
    percentiles, and places beyond lie on the border. An image without a vector lies where a vector of zeros would.

    Raises:
        UsageError: the index has no vectors.
    """
    if not encoders:
        raise UsageError("the index was built without encoders, so there are no vectors to draw a map of")
    vectors = [reader.stored_vectors(name) for name in encoders]
    count, width = len(reader), sum(each.shape[1] for each in vectors)
    if not count:
        return np.zeros((0, 2), np.float32)
    step = -(-count // MOST)
    total, products = np.zeros(width), np.zeros((width, width))
    for start in range(0, count, ROWS * step):
        part = _wide(vectors, slice(start, start + ROWS * step, step))
        total += part.sum(axis=0)
        products += part.T @ part
    taken = len(range(0, count, step))
    mean = total / taken
    axes = _axes(products / taken - np.outer(mean, mean))
    places = np.concatenate(
        [(_wide(vectors, slice(start, start + ROWS)) - mean) @ axes for start in range(0, count, ROWS)]
    )
    return _stretched(places)


def _wide(vectors: Sequence[NDArray[np.float16]], rows: slice) -> NDArray[np.float64]:
    return np.concatenate([each[rows].astype(np.float64) for each in vectors], axis=1)


def _axes(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the two directions of the largest variance, float64 ``[width, 2]``, each with one fixed sign."""
    _, directions = np.linalg.eigh(covariance)
    axes = directions[:, ::-1][:, :2]
    if axes.shape[1] < 2:  # vectors of a single number
        axes = np.pad(axes, ((0, 0), (0, 1)))
    largest = np.abs(axes).argmax(axis=0)
    signs = np.sign(axes[largest, np.arange(2)])
    turned: NDArray[np.float64] = axes * np.where(signs == 0, 1, signs)
    return turned


def _stretched(places: NDArray[np.float64]) -> NDArray[np.float32]:
    low, high = np.percentile(places, [1, 99], axis=0)
    stretched: NDArray[np.float32] = np.clip((places - low) / np.maximum(high - low, 1e-12), 0, 1).astype(np.float32)
    return stretched
