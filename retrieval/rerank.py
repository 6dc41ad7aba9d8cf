"""Score candidates against a query chunk by chunk, reading the next chunk while one is scored."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.aas import QKV, AnyReadout, aligned_attention_scores, attention_output, higher_is_closer
from retrieval.vocabulary import LINEAR, Similarity

READ_BYTES = 100 << 20  # of stored tensors fetched at a time, one fetch ahead
READ_ROWS = 512
# Scored at a time, as float32. One SD 1.5 image is best: more leave the processor's caches, and torch returns blocks
# beyond 32 MB to the system after every use, whose page faults then cost more than the arithmetic (DESIGN.md, log).
STEP_BYTES = 8 << 20
STEP_ROWS = 32

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
    readout: AnyReadout = LINEAR,
) -> Scored:
    """Score ``rows`` against ``query``.

    Args:
        query: one item, float32, on the device that scores.
        rows: rows of the index, any order; a score does not depend on it.
        read: fetches tensors of rows; called in another thread, one chunk ahead.
        similarity: see :func:`retrieval.aas.aligned_attention_scores`.
        readout: the mode's, or the model's.
    """
    numbers = sum(tensor[0].numel() for tensor in (query.q, query.k, query.v))
    size = max(1, min(READ_ROWS, READ_BYTES // (2 * numbers)))
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
    scorer = _Scorer(query, similarity, readout, max(1, min(STEP_ROWS, STEP_BYTES // (4 * numbers))))
    scores: list[NDArray[np.float32]] = []
    read_ms = score_ms = 0.0
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(read, chunk) for chunk in chunks[:1]]
        for following in [*chunks[1:], None] if chunks else []:
            start = perf_counter()
            stored = waiting.pop().result()
            if following is not None:
                waiting.append(pool.submit(read, following))
            loaded = perf_counter()
            scores.append(scorer.score(stored))
            read_ms += 1e3 * (loaded - start)
            score_ms += 1e3 * (perf_counter() - loaded)
    return Scored(np.concatenate(scores) if scores else np.empty(0, np.float32), read_ms, score_ms)


class _Scorer:
    """Scores stored rows a few at a time, in float32 buffers that are used again and again."""

    def __init__(self, query: QKV, similarity: Similarity, readout: AnyReadout, step: int) -> None:
        self._query, self._similarity, self._readout, self._step = query, similarity, readout, step
        self._own = attention_output(query.q, query.k, query.v)
        self._buffers = {
            name: tensor.new_empty((step, *tensor.shape[1:]), dtype=torch.float32)
            for name, tensor in (("q", query.q), ("k", query.k), ("v", query.v))
        }

    def score(self, stored: Mapping[str, NDArray[np.float16]]) -> NDArray[np.float32]:
        """Return the score of every row, float32 ``[rows]``."""
        count = len(stored["q"])
        steps = [
            self._score_step(stored, start, min(start + self._step, count)) for start in range(0, count, self._step)
        ]
        return np.concatenate(steps)

    def _score_step(self, stored: Mapping[str, NDArray[np.float16]], start: int, end: int) -> NDArray[np.float32]:
        tensors = []
        for name, buffer in self._buffers.items():
            tensors.append(buffer[: end - start].copy_(torch.from_numpy(stored[name][start:end])))
        candidates = QKV(*tensors)
        scores = aligned_attention_scores(
            self._query, candidates, self._similarity, query_output=self._own, readout=self._readout
        )
        result: NDArray[np.float32] = scores.cpu().numpy()
        return result


def closest_first(
    scores: NDArray[np.float32], ids: NDArray[np.int64], similarity: Similarity = "cosine"
) -> NDArray[np.int64]:
    """Return positions from closest to farthest; equal scores are ordered by id, so the order is always the same."""
    keys = -scores if higher_is_closer(similarity) else scores
    order: NDArray[np.int64] = np.lexsort((ids, keys))
    return order
