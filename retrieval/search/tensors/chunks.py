"""Chunks of candidates on the scoring device, as tensor sources yield them and the re-ranker scores them.

A chunk is scored in steps of a few candidates. Every step is loaded into the same buffers: new memory for each would
cost page faults on a CPU and fragments on a GPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from retrieval.encoding.stored_tensors import DecodeQKV
from retrieval.scoring.aas import QKV
from retrieval.search.tensors.memory_cache import CachedCandidate, ModeCache


class Buffers:
    """Memory on the scoring device for one step of candidates; the next step overwrites it."""

    def __init__(self, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        """Take the most rows of a step, the dtype of attention, and the device."""
        self._rows, self._dtype, self._device = rows, dtype, device
        self._tensors: dict[str, Tensor] = {}

    def widen(self, name: str, part: Tensor) -> Tensor:
        """Return ``part [rows, ...]`` as float32."""
        return self._tensor(name, part.shape[1:], torch.float32)[: len(part)].copy_(part)

    def stack(self, name: str, parts: Sequence[Tensor]) -> Tensor:
        """Return ``parts`` as one tensor ``[parts, ...]`` in the dtype of attention."""
        if len(parts) == 1 and parts[0].dtype == self._dtype:
            return parts[0][None]
        stacked = self._tensor(f"stacked {name}", parts[0].shape, self._dtype)[: len(parts)]
        if parts[0].dtype == stacked.dtype:
            return torch.stack(list(parts), out=stacked)  # one call for all: on a GPU each costs some microseconds
        for place, part in zip(stacked, parts, strict=True):
            place.copy_(part)
        return stacked

    def _tensor(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        if name not in self._tensors or self._tensors[name].shape[1:] != shape:
            self._tensors[name] = torch.empty((self._rows, *shape), dtype=dtype, device=self._device)
        return self._tensors[name]


@dataclass(frozen=True)
class StoredChunk:
    """Candidates as the index's codec stores them."""

    rows: Sequence[int]
    arrays: Mapping[str, Tensor]  # ``[rows, ...]`` each, on the scoring device
    decode: DecodeQKV
    cache: ModeCache | None = None  # where scored candidates are kept

    def load(self, part: slice, buffers: Buffers, asks: bool = True) -> tuple[QKV, None]:
        """Return the Q/K/V of some of the rows, float32; their own outputs are not known yet."""
        return self.decode({name: buffers.widen(name, array[part]) for name, array in self.arrays.items()}), None

    def keep(self, part: slice, candidates: QKV, outputs: Tensor) -> None:
        """Cache candidates that were scored."""
        if self.cache is not None:
            self.cache.put(self.rows[part], candidates, outputs)


@dataclass(frozen=True)
class CachedChunk:
    """Candidates of the memory cache."""

    rows: Sequence[int]
    candidates: Sequence[CachedCandidate]

    def load(self, part: slice, buffers: Buffers, asks: bool = True) -> tuple[QKV, Tensor | None]:
        """Return the Q/K/V and own outputs of some of the rows, in the dtype of attention.

        Where candidates don't ask, only K and V are copied: Q has no tokens, and own outputs are None.
        """
        chosen = self.candidates[part]
        k, v = (buffers.stack(name, [getattr(each, name) for each in chosen]) for name in "kv")
        if not asks:
            return QKV(k[:, :, :, :0], k, v), None
        q = k if all(each.q is each.k for each in chosen) else buffers.stack("q", [each.q for each in chosen])
        return QKV(q, k, v), buffers.stack("output", [each.output for each in chosen])


Chunk: TypeAlias = StoredChunk | CachedChunk
