"""From a layer's input to its Q, K and V, as pure functions on tensors.

A layer's input h is as wide as one of the three, so an index that stores h takes a third of the space. The index stores
the projection once, and scoring computes Q, K and V from h again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear

from retrieval.scoring.aas import QKV


@dataclass(frozen=True)
class LinearProjection:
    """Three linear maps: weights ``[heads, head_dim, width]`` and optional biases ``[heads, head_dim]``.

    A rotation (cosines and sines ``[patches, head_dim]``) turns Q and K of the last tokens by their position.
    """

    weights: tuple[Tensor, Tensor, Tensor]  # of Q, K, V
    biases: tuple[Tensor, Tensor, Tensor] | None = None
    rotation: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, to_q: nn.Linear, to_k: nn.Linear, to_v: nn.Linear, heads: int) -> "LinearProjection":
        """Take a layer's own linear maps without copying them; a missing bias beside others is zero."""
        q, k, v = (to.weight.view(heads, -1, to.in_features) for to in (to_q, to_k, to_v))
        own: list[Any] = [to.bias for to in (to_q, to_k, to_v)]
        if all(bias is None for bias in own):
            return cls((q, k, v))
        zeros = to_q.weight.new_zeros(to_q.out_features)
        b, c, d = ((zeros if bias is None else bias).view(heads, -1) for bias in own)
        return cls((q, k, v), (b, c, d))

    @classmethod
    def of_fused(cls, to_qkv: nn.Linear, heads: int) -> "LinearProjection":
        """Take one linear map that gives Q, K and V side by side, without copying it."""
        q, k, v = to_qkv.weight.view(3, heads, -1, to_qkv.in_features)
        bias: Any = to_qkv.bias
        if bias is None:
            return cls((q, k, v))
        b, c, d = bias.view(3, heads, -1)
        return cls((q, k, v), (b, c, d))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "LinearProjection":
        """Return the projection whose :meth:`arrays` these are, on the CPU; a missing array is a KeyError."""
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return cls(
            (tensors["q"], tensors["k"], tensors["v"]),
            (tensors["q_bias"], tensors["k_bias"], tensors["v_bias"]) if "q_bias" in tensors else None,
            (tensors["cos"], tensors["sin"]) if "cos" in tensors else None,
        )

    def __call__(self, hidden: Tensor) -> QKV:
        """See :class:`retrieval.models.protocols.Projection`."""
        biases = self.biases or (None, None, None)
        q, k, v = (_heads_of(hidden, weight, bias) for weight, bias in zip(self.weights, biases, strict=True))
        if self.rotation is not None:
            q, k = (_rotated(each, *self.rotation) for each in (q, k))
        return QKV(q, k, v)

    def to(self, device: torch.device | str) -> "LinearProjection":
        """See :class:`retrieval.models.protocols.Projection`."""

        def moved(tensors: tuple[Tensor, ...]) -> Any:
            return tuple(tensor.to(device, torch.float32) for tensor in tensors)

        biases, rotation = (None if each is None else moved(each) for each in (self.biases, self.rotation))
        return LinearProjection(moved(self.weights), biases, rotation)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return float32 ``q``, ``k``, ``v``; with biases ``q_bias`` and so on; with a rotation ``cos`` and ``sin``."""
        named = dict(zip("qkv", self.weights, strict=True))
        if self.biases is not None:
            named |= dict(zip(("q_bias", "k_bias", "v_bias"), self.biases, strict=True))
        if self.rotation is not None:
            named |= dict(zip(("cos", "sin"), self.rotation, strict=True))
        return {name: tensor.detach().float().cpu().numpy() for name, tensor in named.items()}


def _heads_of(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    flat: Tensor = linear(hidden, weight.flatten(0, 1), None if bias is None else bias.flatten())
    return flat.view(*hidden.shape[:-1], *weight.shape[:2]).transpose(-3, -2)


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the last tokens of ``[..., tokens, head_dim]``: the halves of a head are the two axes of the planes."""
    first_patch = heads.shape[-2] - cos.shape[0]
    before, patches = heads[..., :first_patch, :], heads[..., first_patch:, :]
    first, second = patches.chunk(2, dim=-1)
    turned = patches * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((before, turned), dim=-2)
