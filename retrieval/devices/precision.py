"""How each kind of device scores: one table."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ScoringPrecision:
    """How a device scores."""

    dtype: torch.dtype  # of attention
    step_bytes: int  # of candidates scored at a time, as float32
    step_rows: int


# CPU: one SD 1.5 image at a time is best: more leave the processor's caches, and torch returns blocks beyond 32 MB to
# the system after every use, whose page faults then cost more than the arithmetic (DESIGN.md, log). A GPU wants few
# large calls, and multiplies 16 bits many times faster; what that does to scores is a hundredth of the tolerance.
SCORING_PRECISION = {
    "cpu": ScoringPrecision(torch.float32, 8 << 20, 32),
    "cuda": ScoringPrecision(torch.float16, 256 << 20, 512),
    "mps": ScoringPrecision(torch.float32, 64 << 20, 128),
}
