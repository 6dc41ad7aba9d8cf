"""An LRU cache of candidates in the memory of the scoring device: their tensors and their own attention outputs.

A candidate's own output does not depend on the query. A cached candidate therefore costs two attention calls a pair
instead of three, and nothing is read from the disk or widened.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retrieval.devices.memory import available_memory, is_memory_full
from retrieval.devices.precision import SCORING_PRECISION
from retrieval.scoring.aas import QKV

logger = logging.getLogger(__name__)

CPU_BYTES = 2 << 30  # the most on a CPU: 200 candidates of SD 1.5 take 1.3 GB, or 2.1 GB from layer inputs
SHARE = 0.25  # of the free memory when an engine opens; its models are loaded later
RECOVERY_SECONDS = 60.0  # without a shortage of memory, after which a reduced limit doubles
LEAST_SHARE = 1 / 64  # of the budget: where a limit that was reduced to nothing begins again


def default_budget(device: torch.device) -> int:
    """Return how many bytes of ``device``'s memory candidates may take where the user names no number."""
    free = available_memory(device)
    share = CPU_BYTES if free is None else int(SHARE * free)
    return share if device.type == "cuda" else min(CPU_BYTES, share)


def cache_dtype(device: torch.device, hidden: bool) -> torch.dtype:
    """Return the smallest dtype that keeps candidates without loss, for a scoring on ``device``.

    Args:
        device: where candidates are scored and cached.
        hidden: the index stores layer inputs, whose projections need more than float16.
    """
    return SCORING_PRECISION[device.type].dtype if hidden else torch.float16


@dataclass(frozen=True)
class CachedCandidate:
    """One candidate: q, k, v and its own output, each without the items axis; q and k may be one tensor."""

    q: Tensor
    k: Tensor
    v: Tensor
    output: Tensor  # before the readout, in the dtype of the device's attention

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        queries = () if self.q is self.k else (self.q,)
        return sum(tensor.nbytes for tensor in (*queries, self.k, self.v, self.output))


class MemoryCache:
    """Candidates by mode and row; the least recently used leave when the limit is reached. Safe in many threads.

    The limit is the budget. A shortage of the device's memory empties the cache and halves the limit, which then
    doubles every :data:`RECOVERY_SECONDS` until it is the budget again.
    """

    def __init__(self, budget: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep at most ``budget`` bytes; 0 keeps nothing. ``clock`` returns seconds."""
        self.budget = budget
        self._clock = clock
        self._shortage: tuple[float, int] | None = None  # when memory was last full, and the limit from then on
        self._bytes = 0
        self._candidates: OrderedDict[tuple[str, int], CachedCandidate] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._candidates)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return self._bytes

    @property
    def limit(self) -> int:
        """Bytes that may be held now."""
        if self._shortage is None:
            return self.budget
        since, reduced = self._shortage
        doublings = int((self._clock() - since) / RECOVERY_SECONDS)
        if not doublings:
            return reduced
        return min(self.budget, max(reduced, int(LEAST_SHARE * self.budget)) << min(doublings, 64))

    def get(self, mode: str, row: int) -> CachedCandidate | None:
        """Return a candidate, now the most recently used one, or None."""
        with self._lock:
            found = self._candidates.get((mode, row))
            if found is not None:
                self._candidates.move_to_end((mode, row))
            return found

    def put(self, mode: str, row: int, candidate: CachedCandidate) -> None:
        """Keep a candidate, unless it is larger than the limit."""
        limit = self.limit
        if candidate.nbytes > limit:
            return
        with self._lock:
            older = self._candidates.pop((mode, row), None)
            self._bytes += candidate.nbytes - (0 if older is None else older.nbytes)
            self._candidates[mode, row] = candidate
            while self._bytes > limit:
                self._bytes -= self._candidates.popitem(last=False)[1].nbytes

    def shrink(self) -> None:
        """Drop all candidates after a shortage of memory, and halve the limit for a while."""
        with self._lock:
            held, self._bytes = self._bytes, 0
            self._shortage = self._clock(), held // 2
            self._candidates.clear()
        logger.warning(
            "the scoring device's memory is full: %d cached bytes were dropped, at most %d are cached for %.0f s",
            *(held, held // 2, RECOVERY_SECONDS),
        )

    def of_mode(self, mode: str, dtype: torch.dtype) -> "ModeCache":
        """Return the candidates of one mode, kept in ``dtype``; see :func:`cache_dtype`."""
        return ModeCache(self, mode, dtype)


@dataclass(frozen=True)
class ModeCache:
    """One mode's part of a cache."""

    cache: MemoryCache
    mode: str
    dtype: torch.dtype

    def find(self, rows: Sequence[int]) -> dict[int, CachedCandidate]:
        """Return the cached ones among ``rows``, by row."""
        found = ((row, self.cache.get(self.mode, row)) for row in rows)
        return {row: candidate for row, candidate in found if candidate is not None}

    def put(self, rows: Sequence[int], candidates: QKV, outputs: Tensor) -> None:
        """Keep ``rows``, whose tensors and own outputs are ``[rows, ...]`` and may be overwritten later.

        Where the device's memory is full the cache shrinks; the search itself goes on.
        """
        try:
            for position, row in enumerate(rows):
                # Copies: a slice would keep the memory of all the rows it was cut from.
                k, v = (t[position].to(self.dtype, copy=True) for t in (candidates.k, candidates.v))
                q = k if candidates.is_tied else candidates.q[position].to(self.dtype, copy=True)
                self.cache.put(self.mode, row, CachedCandidate(q, k, v, outputs[position].clone()))
        except (RuntimeError, MemoryError) as error:
            if not is_memory_full(error):
                raise
            self.cache.shrink()
