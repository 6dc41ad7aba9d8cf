"""Score candidates against a query chunk by chunk, reading the next chunk while one is scored."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.aas import QKV, aligned_attention_scores, attention_output, higher_is_closer
from retrieval.readout import LINEAR, Readout
from retrieval.vocabulary import Similarity

CHUNK_BYTES = 100 << 20  # of stored tensors; 25 SD 1.5 images: measured best, 100 of them are 1.3 x slower
CHUNK_ROWS = 64

ReadRows = Callable[[Sequence[int]], dict[str, NDArray[np.float16]]]
"""Rows to q, k, v, each ``[rows, branches, heads, tokens, head_dim]``."""


@dataclass(frozen=True)
class Scored:
    """Scores in the order of the rows given, and where the time went."""

    scores: NDArray[np.float32]
    read_ms: float  # waiting for tensors; reading behind the scoring costs nothing and is not counted
    score_ms: float


@torch.inference_mode()
def score_rows(
    query: QKV,
    rows: Sequence[int],
    read: ReadRows,
    similarity: Similarity = "cosine",
    readout: Readout = LINEAR,
) -> Scored:
    """Score ``rows`` against ``query``.

    Args:
        query: one item, float32, on the device that scores.
        rows: rows of the index, any order; a score does not depend on it.
        read: fetches tensors of rows; called in another thread, one chunk ahead.
        similarity: see :func:`retrieval.aas.aligned_attention_scores`.
        readout: the mode's.
    """
    bytes_a_row = 2 * (2 * query.q[0].numel() + query.v[0].numel())
    size = max(1, min(CHUNK_ROWS, CHUNK_BYTES // bytes_a_row))
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
    scores: list[NDArray[np.float32]] = []
    read_ms = score_ms = 0.0
    own = attention_output(query.q, query.k, query.v)
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(read, chunk) for chunk in chunks[:1]]
        for following in [*chunks[1:], None]:
            if not waiting:
                break
            start = perf_counter()
            stored = waiting.pop().result()
            if following is not None:
                waiting.append(pool.submit(read, following))
            loaded = perf_counter()
            candidates = QKV(*(torch.from_numpy(stored[name]).to(query.q.device) for name in ("q", "k", "v")))
            found = aligned_attention_scores(query, candidates, similarity, query_output=own, readout=readout)
            scores.append(found.cpu().numpy())
            read_ms += 1e3 * (loaded - start)
            score_ms += 1e3 * (perf_counter() - loaded)
    return Scored(np.concatenate(scores) if scores else np.empty(0, np.float32), read_ms, score_ms)


def closest_first(
    scores: NDArray[np.float32], ids: NDArray[np.int64], similarity: Similarity = "cosine"
) -> NDArray[np.int64]:
    """Return positions from closest to farthest; equal scores are ordered by id, so the order is always the same."""
    keys = -scores if higher_is_closer(similarity) else scores
    order: NDArray[np.int64] = np.lexsort((ids, keys))
    return order
