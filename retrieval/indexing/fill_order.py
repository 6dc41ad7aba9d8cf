"""The order in which a fill computes missing tensors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_store.lookup import locate_image
from index_store.reader import IndexReader
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.errors import UsageError
from retrieval.images.decoding import read_image
from retrieval.models.modes import Outputs
from retrieval.settings import NEWEST

OLDEST, PATH, LIKE = "oldest", "path", "like:"


def check_order(order: Sequence[str]) -> None:
    """Raise a UsageError unless ``order`` is one known order, or one or more of ``like:QUERY``."""
    known = [word for word in order if word in (NEWEST, OLDEST, PATH)]
    pictures = [word for word in order if word.startswith(LIKE) and word != LIKE]
    unknown = [word for word in order if word not in known and word not in pictures]
    if unknown or not order:
        raise UsageError(f"unknown order '{' '.join(unknown)}'; known: newest, oldest, path, like:QUERY (repeatable)")
    if known and len(order) > 1:
        raise UsageError(f"several orders ({', '.join(order)}): give one; only like:QUERY may be repeated")


def in_order(reader: IndexReader, order: Sequence[str], models: LoadedModels) -> NDArray[np.int64]:
    """Return all rows of the index in ``order``, int64 ``[len(reader)]``.

    ``newest`` and ``oldest`` sort by the files' time of change, ``path`` by name. ``like:QUERY`` sorts by similarity:
    the mean cosine over the encoders of the index, or its maximum over several queries.

    Raises:
        UsageError: the index has no vectors to compare a query with, or a query is not found.
    """
    return _in_order(reader, order, models).astype(np.int64)


def _in_order(reader: IndexReader, order: Sequence[str], models: LoadedModels) -> NDArray[np.intp]:
    if order[0].startswith(LIKE):
        similarity = np.max([_similarity(reader, word.removeprefix(LIKE), models) for word in order], axis=0)
        return np.lexsort((np.arange(len(reader)), -similarity))
    if order[0] == PATH:
        uris = reader.uris()
        return np.array(sorted(range(len(uris)), key=uris.__getitem__), np.intp)
    _, times, _ = reader.file_states()
    return np.argsort(times if order[0] == OLDEST else -times, kind="stable")


def _similarity(reader: IndexReader, query: str, models: LoadedModels) -> NDArray[np.float32]:
    """Return the similarity of every item to ``query``, float32 ``[len(reader)]``."""
    encoders = [name for name in reader.generation.encoders if reader.has_vector(name).any()]
    if not encoders:
        raise UsageError(f"{reader.layout.root} has no vectors to compare {query} with; choose another order")
    image, _ = read_image(Path(locate_image(reader, query)), models.rules)
    outputs = Outputs(encoders=tuple(encoders))
    vectors = models.encode([models.prepare(image, outputs)], "query", outputs).vectors
    cosines = [reader.vectors(name) @ vectors[name][0] for name in encoders]
    mean: NDArray[np.float32] = np.mean(cosines, axis=0, dtype=np.float32)
    return mean
