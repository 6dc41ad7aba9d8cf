"""Score rows of arrays in memory as a search scores those of an index."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.devices.threads import ALONE, CoreThreads
from retrieval.encoding.stored_tensors import DecodeQKV, stored_qkv
from retrieval.scoring.aas import PUBLISHED, QKV, Comparison
from retrieval.search.reranking import QueryTensors, rerank
from retrieval.search.tensors.memory_cache import ModeCache
from retrieval.search.tensors.tensor_sources import MemoryTensors, ReadRows, StoredTensors


def scores_of(
    queries: Sequence[QKV],
    rows: Sequence[Sequence[int]],
    read: ReadRows,
    how: Comparison = PUBLISHED,
    cache: ModeCache | None = None,
    decode: DecodeQKV = stored_qkv,
    threads: CoreThreads = ALONE,
) -> list[NDArray[np.float32]]:
    """Return, for every query, the scores of its ``rows``, from the cache where it has them."""
    every = list(dict.fromkeys(row for mine in rows for row in mine))
    held = {} if cache is None else cache.find(every)
    device = queries[0].q.device
    row_bytes = sum(tensor[0].nbytes // 2 for tensor in (queries[0].q, queries[0].k, queries[0].v))  # as float16
    unread = [row for row in every if row not in held]
    sources = (MemoryTensors(held), StoredTensors(unread, read, decode, device, row_bytes, cache))
    asked = [QueryTensors(query, mine) for query, mine in zip(queries, rows, strict=True)]
    found = rerank(asked, sources, how, threads)
    return [
        np.array([scores[row] for row in mine], np.float32) for scores, mine in zip(found.scores, rows, strict=True)
    ]
