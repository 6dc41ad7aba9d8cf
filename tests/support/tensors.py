"""Random tensors of a layer, the same on every machine."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.scoring.aas import QKV

Triple = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def random_qkv(items: int, shape: tuple[int, ...], seed: int, spread: float = 2.0) -> QKV:
    """Return ``items`` of ``shape [branches, heads, tokens, head_dim]``."""
    generator = torch.Generator().manual_seed(seed)
    return QKV(*(spread * torch.randn((items, *shape), generator=generator) for _ in range(3)))


def as_triple(qkv: QKV, item: int) -> Triple:
    """Return one item's Q, K and V, as tests.support.reference takes them."""
    found: Any = tuple(t[item].double().numpy() for t in (qkv.q, qkv.k, qkv.v))
    return found


def half_arrays(qkv: QKV) -> dict[str, NDArray[np.float16]]:
    """Return the tensors as an index stores them."""
    return {name: getattr(qkv, name).half().numpy() for name in "qkv"}
