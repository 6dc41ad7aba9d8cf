"""The dtype and the step sizes that each kind of device scores with."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ScoringPrecision:
    """How a device scores candidates: the dtype of attention, and the most that is scored at a time."""

    dtype: torch.dtype
    step_bytes: int  # of candidates, as float32
    step_rows: int


# On a CPU one SD 1.5 image at a time is best: more would leave the processor's caches, and torch returns blocks beyond
# 32 MB to the system after every use, whose page faults then cost more than the arithmetic. A GPU wants few large
# calls and multiplies float16 many times faster, which changes scores by a hundredth of the tolerance.
SCORING_PRECISION = {
    "cpu": ScoringPrecision(torch.float32, 8 << 20, 32),
    "cuda": ScoringPrecision(torch.float16, 256 << 20, 512),
    "mps": ScoringPrecision(torch.float32, 64 << 20, 128),
}
