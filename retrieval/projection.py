"""From a layer's input to its Q, K and V: pure functions on tensors, and the numbers that an index keeps of them.

A layer's input h has the width of one of the three, so an index that stores h is a third of one that stores Q, K and V;
the projection, stored once, makes them again where candidates are scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear

from retrieval.aas import QKV
from retrieval.backbones import AttentionExtractor, Pixels
from retrieval.mini.cells import LAB_SIZE
from retrieval.mini.values import MATCH_PATTERNS, match_features, weighted
from retrieval.modes import CellValues, Target
from retrieval.vocabulary import Role


class Projection(Protocol):
    """From ``[items, branches, tokens, width]`` to Q, K and V."""

    def __call__(self, hidden: Tensor) -> QKV:
        """Project inputs that lie on the projection's device, in its dtype."""

    def to(self, device: torch.device | str) -> "Projection":
        """Return it on ``device``, in float32."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what :func:`load_projection` makes it from."""


@runtime_checkable
class HiddenExtractor(AttentionExtractor, Protocol):
    """An extractor whose Q/K/V are projections of a layer's input h, so that an index may keep h: a third of them."""

    def hidden(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, Tensor]:
        """Return each target's h ``[images, branches, tokens, width]`` on the model's device."""

    def projection(self, target: Target) -> Projection:
        """Return what makes the target's Q/K/V of h."""

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        """Return one image's (branches, tokens, width) without computing anything."""


@dataclass(frozen=True)
class LinearProjection:
    """Three linear maps: weights ``[heads, head_dim, width]`` and, where it has any, biases ``[heads, head_dim]``."""

    weights: tuple[Tensor, Tensor, Tensor]  # of Q, K, V
    biases: tuple[Tensor, Tensor, Tensor] | None = None

    @classmethod
    def of(cls, to_q: nn.Linear, to_k: nn.Linear, to_v: nn.Linear, heads: int) -> "LinearProjection":
        """Read a layer's own linear maps; nothing is copied."""
        q, k, v = (to.weight.view(heads, -1, to.in_features) for to in (to_q, to_k, to_v))
        biases = [to.bias.view(heads, -1) for to in (to_q, to_k, to_v) if isinstance(to.bias, Tensor)]
        return cls((q, k, v), (biases[0], biases[1], biases[2]) if biases else None)

    def __call__(self, hidden: Tensor) -> QKV:
        """See :class:`Projection`."""
        biases = self.biases or (None, None, None)
        return QKV(*(_heads_of(hidden, weight, bias) for weight, bias in zip(self.weights, biases, strict=True)))

    def to(self, device: torch.device | str) -> "LinearProjection":
        """See :class:`Projection`."""
        q, k, v = (weight.to(device, torch.float32) for weight in self.weights)
        if self.biases is None:
            return LinearProjection((q, k, v))
        b, c, d = (bias.to(device, torch.float32) for bias in self.biases)
        return LinearProjection((q, k, v), (b, c, d))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See :class:`Projection`: float32 ``q``, ``k``, ``v`` and, with biases, ``q_bias``, ``k_bias``, ``v_bias``."""
        named = dict(zip("qkv", self.weights, strict=True))
        if self.biases is not None:
            named |= dict(zip(("q_bias", "k_bias", "v_bias"), self.biases, strict=True))
        return {name: tensor.detach().float().cpu().numpy() for name, tensor in named.items()}


def _heads_of(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    flat: Tensor = linear(hidden, weight.flatten(0, 1), None if bias is None else bias.flatten())
    return flat.view(*hidden.shape[:-1], *weight.shape[:2]).transpose(-3, -2)


@dataclass(frozen=True)
class CellProjection:
    """From the roots of cells' histograms, ``[items, 1, cells, 214]``, to the tensors of the embedded model.

    Roots and not the histograms themselves, because scores read roots: that is where equal steps of an int8 do least.
    """

    values: CellValues

    def __call__(self, hidden: Tensor) -> QKV:
        """See :class:`Projection`."""
        histograms = hidden.squeeze(1).square()
        return project_cells(histograms[..., :LAB_SIZE], histograms[..., LAB_SIZE:], self.values)

    def to(self, device: torch.device | str) -> "CellProjection":
        """See :class:`Projection`."""
        return self

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See :class:`Projection`: the three numbers of the mode's values."""
        return {name: np.array(value) for name, value in asdict(self.values).items()}


def project_cells(lab: Tensor, lbp: Tensor, values: CellValues) -> QKV:
    """Return the tensors of the layer ``cells``, ``[items, 1, 1, cells, 214]``, from its two histograms."""
    features = match_features(torch.cat([lab, MATCH_PATTERNS * lbp], dim=-1), values.sharpness)[:, None, None]
    return QKV(features, features, weighted(lab, lbp, values)[:, None, None])


def load_projection(arrays: Mapping[str, NDArray[Any]]) -> LinearProjection | CellProjection:
    """Return the projection that ``arrays`` were taken from, on the CPU.

    Raises:
        KeyError, TypeError: they are of no kind that this version knows.
    """
    if "q" not in arrays:
        return CellProjection(CellValues(**{name: float(value) for name, value in arrays.items()}))
    q, k, v = (torch.from_numpy(arrays[name]) for name in "qkv")
    if "q_bias" not in arrays:
        return LinearProjection((q, k, v))
    b, c, d = (torch.from_numpy(arrays[name]) for name in ("q_bias", "k_bias", "v_bias"))
    return LinearProjection((q, k, v), (b, c, d))
