"""The dtype and the step sizes that each kind of device scores with."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ScoringPrecision:
    """How a device scores candidates: the dtype of attention, and the most that is scored and read at a time."""

    dtype: torch.dtype
    step_bytes: int  # of candidates, as float32
    step_rows: int
    chunk_bytes: int = 32 << 20  # of candidates, as stored, that are read while others are scored


# On a CPU one SD 1.5 image at a time is best: more would leave the processor's caches, and torch returns blocks beyond
# 32 MB to the system after every use, whose page faults then cost more than the arithmetic; so do arrays beyond 32 MB
# that are read. A GPU wants few large calls and multiplies float16 many times faster, which changes scores by a
# hundredth of the tolerance.
SCORING_PRECISION = {
    "cpu": ScoringPrecision(torch.float32, 8 << 20, 32),
    "cuda": ScoringPrecision(torch.float16, 256 << 20, 512, 100 << 20),
    "mps": ScoringPrecision(torch.float32, 64 << 20, 128, 100 << 20),
}
