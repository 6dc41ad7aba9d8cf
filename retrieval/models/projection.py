"""From a layer's input to its Q, K and V, as pure functions on tensors.

A layer's input h is as wide as one of the three, so an index that stores h takes a third of the space. The index stores
the projection once, and scoring computes Q, K and V from h again.
"""

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear

from retrieval.scoring.aas import QKV


@dataclass(frozen=True)
class LinearProjection:
    """Three linear maps: weights ``[heads, head_dim, width]`` and optional biases ``[heads, head_dim]``."""

    weights: tuple[Tensor, Tensor, Tensor]  # of Q, K, V
    biases: tuple[Tensor, Tensor, Tensor] | None = None

    @classmethod
    def of(cls, to_q: nn.Linear, to_k: nn.Linear, to_v: nn.Linear, heads: int) -> "LinearProjection":
        """Take a layer's own linear maps without copying them."""
        q, k, v = (to.weight.view(heads, -1, to.in_features) for to in (to_q, to_k, to_v))
        biases = [to.bias.view(heads, -1) for to in (to_q, to_k, to_v) if isinstance(to.bias, Tensor)]
        return cls((q, k, v), (biases[0], biases[1], biases[2]) if biases else None)

    def __call__(self, hidden: Tensor) -> QKV:
        """See :class:`retrieval.models.protocols.Projection`."""
        biases = self.biases or (None, None, None)
        return QKV(*(_heads_of(hidden, weight, bias) for weight, bias in zip(self.weights, biases, strict=True)))

    def to(self, device: torch.device | str) -> "LinearProjection":
        """See :class:`retrieval.models.protocols.Projection`."""
        q, k, v = (weight.to(device, torch.float32) for weight in self.weights)
        if self.biases is None:
            return LinearProjection((q, k, v))
        b, c, d = (bias.to(device, torch.float32) for bias in self.biases)
        return LinearProjection((q, k, v), (b, c, d))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return float32 ``q``, ``k``, ``v`` and, with biases, ``q_bias``, ``k_bias`` and ``v_bias``."""
        named = dict(zip("qkv", self.weights, strict=True))
        if self.biases is not None:
            named |= dict(zip(("q_bias", "k_bias", "v_bias"), self.biases, strict=True))
        return {name: tensor.detach().float().cpu().numpy() for name, tensor in named.items()}


def _heads_of(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    flat: Tensor = linear(hidden, weight.flatten(0, 1), None if bias is None else bias.flatten())
    return flat.view(*hidden.shape[:-1], *weight.shape[:2]).transpose(-3, -2)
