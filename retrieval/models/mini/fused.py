"""Convolutions on a CPU, each with its bias and ReLU6 in one call of oneDNN: half the time of torch's plain ones.

torch made these calls for its own compiler and promises nothing about them. So a network compares its fused maps with
its plain ones before it uses them (:meth:`retrieval.models.mini.network.Lite0.stages`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

Convolve = Callable[[Tensor], Tensor]


def fused(kernel: Tensor, bias: Tensor, side: int, stride: int, bounded: bool) -> Convolve:
    """Return a convolution with TensorFlow's SAME padding for channels-last maps of ``side`` x ``side`` on a CPU.

    Args:
        kernel: float32 ``[channels out, channels in, K, K]``, K odd; with one channel in, each channel is filtered by
            itself.
        bias: float32 ``[channels out]``.
        side: pixels; even where ``stride`` is 2.
        stride: 1 or 2.
        bounded: whether ReLU6 follows.

    Raises:
        AttributeError, RuntimeError: this torch has no such calls.
    """
    padding, groups = kernel.shape[-1] // 2, len(kernel) if kernel.shape[1] == 1 else 1
    if stride == 2:  # The odd pixel goes right and below; with an empty row and column the sides are padded alike.
        kernel = pad(kernel, (1, 0, 1, 0))
    geometry: tuple[Any, ...] = ([padding] * 2, [stride] * 2, [1, 1], groups)
    after: tuple[Any, ...] = ("hardtanh", [0.0, 6.0], "") if bounded else ("none", [], "")
    calls: Any = torch.ops.mkldnn
    packed = calls._reorder_convolution_weight(kernel, *geometry, [1, kernel.shape[1] * groups, side, side])

    def convolve(x: Tensor) -> Tensor:
        y: Tensor = calls._convolution_pointwise(x, packed, bias, *geometry, *after)
        return y

    return convolve
