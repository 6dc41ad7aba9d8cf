"""Random draws by seed, and bundles of factors that are drawn, shared and recombined along their first axis."""

from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor


class Dice:
    """Draws from one CPU generator, moved to ``device``: one seed gives the same factors on every device."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return float32 ``shape`` in [low, high)."""
        return (low + (high - low) * torch.rand(shape, generator=self._generator)).to(self.device)

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        """Return float32 ``shape`` whose logarithm is uniform between those of ``low`` and ``high``."""
        return low * (high / low) ** self.uniform(*shape)

    def normal(self, *shape: int, std: float = 1.0) -> Tensor:
        """Return float32 ``shape`` with mean 0."""
        return (std * torch.randn(shape, generator=self._generator)).to(self.device)

    def integers(self, *shape: int, below: int) -> Tensor:
        """Return int64 ``shape`` in [0, below)."""
        return torch.randint(0, below, shape, generator=self._generator).to(self.device)

    def chance(self, *shape: int, p: float) -> Tensor:
        """Return bool ``shape``, true with probability ``p``."""
        return self.uniform(*shape) < p


@dataclass(frozen=True)
class Factors:
    """Tensors (or further factors) that share a first axis: one row describes one thing."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def take(self, rows: Tensor) -> Self:
        """Return the rows at ``rows`` (int64 ``[n]``), repeated as often as they are named."""
        return type(self)(**{f.name: _take(getattr(self, f.name), rows) for f in fields(self)})

    def where(self, mask: Tensor, other: Self) -> Self:
        """Return the rows of ``self`` where ``mask`` (bool ``[n]``), those of ``other`` elsewhere."""
        mine, yours = torch.nonzero(mask)[:, 0], torch.arange(len(self), device=mask.device)
        rows = yours + len(self)
        rows[mine] = yours[mine]
        return type(self)(
            **{f.name: _take(_join(getattr(self, f.name), getattr(other, f.name)), rows) for f in fields(self)}
        )


def _take(value: Any, rows: Tensor) -> Any:
    return value.take(rows) if isinstance(value, Factors) else value[rows]


def _join(first: Any, second: Any) -> Any:
    if isinstance(first, Factors):
        return type(first)(**{f.name: _join(getattr(first, f.name), getattr(second, f.name)) for f in fields(first)})
    return torch.cat([first, second])
