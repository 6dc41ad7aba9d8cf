"""The numbers of mini that were computed once by ``tests/bench/mini_learnt.py``; the package carries them."""

import hashlib
from functools import cache
from importlib.resources import files
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEARNT = "learnt.npz"


@cache
def read_learnt() -> dict[str, Tensor]:
    """Return the numbers that were computed once: ``meaning [320, 320]`` and ``centre [214]``, float32."""
    with np.load(BytesIO((files(__package__) / LEARNT).read_bytes()), allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in ("meaning", "centre")}


def digest_of(numbers: Tensor) -> NDArray[np.uint8]:
    """Return the SHA-256 of float32 numbers as ``[32]``; an index names ``meaning`` by it."""
    data = numbers.to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
    return np.frombuffer(hashlib.sha256(data.tobytes()).digest(), np.uint8)
