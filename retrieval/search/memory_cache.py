"""Candidates' tensors kept in the memory of the device that scores, with their own attention outputs.

A candidate's own output does not depend on the query: with it at hand, two attention calls a pair are left of three,
and nothing is read or widened from the disk. Memory is bounded; what was used longest ago goes first.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retrieval.devices.memory import available_memory, is_memory_full
from retrieval.devices.precision import SCORING_PRECISION
from retrieval.scoring.aas import QKV

CPU_BYTES = 2 << 30  # at most: 200 candidates of SD 1.5 take 1.3 GB, 2.1 GB where their layer's inputs are stored
SHARE = 0.25  # of what is free when an engine opens: its models come later


def kept_bytes(device: torch.device) -> int:
    """Return how much of ``device``'s memory candidates may take, unless a user says so."""
    free = available_memory(device)
    share = CPU_BYTES if free is None else int(SHARE * free)
    return share if device.type == "cuda" else min(CPU_BYTES, share)


def kept_dtype(device: torch.device, hidden: bool) -> torch.dtype:
    """Return the dtype in which a scoring on ``device`` loses nothing of tensors stored as Q/K/V, or as layer inputs.

    What is made of ``hidden`` layer inputs is more than float16 can say.
    """
    return SCORING_PRECISION[device.type].dtype if hidden else torch.float16


@dataclass(frozen=True)
class HotRow:
    """One candidate: its tensors, without the first axis, in a dtype that loses nothing, and its own output."""

    q: Tensor
    k: Tensor
    v: Tensor
    output: Tensor  # in the dtype of the device's attention

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(tensor.nbytes for tensor in (self.q, self.k, self.v, self.output))


class HotTier:
    """Least recently used rows out, when ``budget`` bytes are full; safe to use from many threads."""

    def __init__(self, budget: int) -> None:
        """Take how many bytes may be held; 0: none."""
        self.budget, self._bytes = budget, 0
        self._rows: OrderedDict[tuple[str, int], HotRow] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return self._bytes

    def get(self, mode: str, row: int) -> HotRow | None:
        """Return a row, and remember that it was used."""
        with self._lock:
            found = self._rows.get((mode, row))
            if found is not None:
                self._rows.move_to_end((mode, row))
            return found

    def put(self, mode: str, row: int, held: HotRow) -> None:
        """Keep a row; one that is larger than the budget is not kept."""
        if held.nbytes > self.budget:
            return
        with self._lock:
            older = self._rows.pop((mode, row), None)
            self._bytes += held.nbytes - (0 if older is None else older.nbytes)
            self._rows[mode, row] = held
            while self._bytes > self.budget:
                self._bytes -= self._rows.popitem(last=False)[1].nbytes

    def shrink(self) -> None:
        """Let all rows go, and hold half of what they took from now on."""
        with self._lock:
            self.budget, self._bytes = self._bytes // 2, 0
            self._rows.clear()


@dataclass(frozen=True)
class HotRows:
    """A tier as the re-ranker sees it: rows of one mode, kept in a ``dtype`` in which scoring loses nothing."""

    tier: HotTier
    mode: str
    dtype: torch.dtype

    def get(self, row: int) -> HotRow | None:
        """Return a row that is held."""
        return self.tier.get(self.mode, row)

    def put(self, rows: Sequence[int], candidates: QKV, outputs: Tensor) -> None:
        """Keep ``rows``, whose tensors and own outputs are ``[rows, ...]`` and may be overwritten later.

        Where the device's memory is full by now, whoever filled it, less is held: a search needs none of it.
        """
        try:
            for position, row in enumerate(rows):
                # Copies: a slice would keep the memory of all the rows it was cut from.
                q, k, v = (t[position].to(self.dtype, copy=True) for t in (candidates.q, candidates.k, candidates.v))
                self.tier.put(self.mode, row, HotRow(q, k, v, outputs[position].clone()))
        except RuntimeError as error:
            if not is_memory_full(error):
                raise
            self.tier.shrink()
