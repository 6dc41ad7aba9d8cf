"""EfficientNet-Lite0 up to its last stage (Tan and Le, ICML 2019; Lite: ReLU6, without squeeze-and-excitation).

The weights come from TensorFlow, so convolutions pad as TensorFlow does: the odd pixel goes right and below. Batch
normalisation (eps 1e-3) is folded into the convolutions when the weights are read. The classifier is left out.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from retrieval.models.mini.fused import Convolve, fused
from retrieval.models.weights.reading import model_errors

STAGES = ((1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6))  # blocks, stride, expansion
MIDDLE, SCALE = 127.0, 128.0  # the released network takes (x - 127) / 128, x in 0 to 255
EPSILON = 1e-3
STRIDE = 32  # pixels a side of a token of the last stage
CHECKED = 3  # stages that have kernels of every size and stride, and few weights
TOLERANCE = 1e-4  # between the maps of fused and of plain convolutions, of the largest number
Weights = Mapping[str, Tensor]


class Convolution:
    """A convolution with TensorFlow's SAME padding, its batch normalisation folded in, and ReLU6 where asked for."""

    def __init__(self, weights: Weights, names: tuple[str, str], stride: int = 1, bounded: bool = True) -> None:
        """Fold the normalisation called ``names[1]`` into the kernel called ``names[0]``."""
        kernel, (scale, shift, mean, variance) = (
            weights[f"{names[0]}.weight"],
            (weights[f"{names[1]}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")),
        )
        factor = scale / (variance + EPSILON).sqrt()
        self._kernel, self._bias = kernel * factor[:, None, None, None], shift - mean * factor
        self.stride, self._bounded = stride, bounded
        self._groups = len(kernel) if kernel.shape[1] == 1 else 1  # depthwise, or dense

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[images, channels out, ceil(H / stride), ceil(W / stride)]``."""
        size = self._kernel.shape[-1]
        if size == 1:  # a product of matrices, because torch's own path for it is slower on one core
            flat = torch.matmul(self._kernel[:, :, 0, 0], x.flatten(2)).add_(self._bias[:, None])
            y = flat.view(len(x), -1, *x.shape[2:])
        elif self.stride == 1:
            y = conv2d(x, self._kernel, self._bias, padding=size // 2, groups=self._groups)
        else:
            y = conv2d(_pad_same(x, size, self.stride), self._kernel, self._bias, self.stride, groups=self._groups)
        return y.clamp_(0, 6) if self._bounded else y

    def fused(self, side: int) -> Convolve:
        """Return the same for maps of ``side`` x ``side`` on a CPU; see :func:`retrieval.models.mini.fused.fused`."""
        return fused(self._kernel, self._bias, side, self.stride, self._bounded)

    def to(self, device: torch.device) -> None:
        """Move the kernel and the bias."""
        self._kernel, self._bias = self._kernel.to(device), self._bias.to(device)


class Block:
    """An inverted residual block: expand, filter each channel, project; the projection is linear."""

    def __init__(self, weights: Weights, number: int, stride: int, expands: bool, skips: bool) -> None:
        """Read block ``number`` of the released network."""
        name = f"_blocks.{number}."
        self._skips = skips
        self.convolutions: list[Convolution] = [
            *([Convolution(weights, (f"{name}_expand_conv", f"{name}_bn0"))] if expands else []),
            Convolution(weights, (f"{name}_depthwise_conv", f"{name}_bn1"), stride),
            Convolution(weights, (f"{name}_project_conv", f"{name}_bn2"), bounded=False),
        ]
        # A normalisation's output has this mean over the training images.
        self.mean = weights[f"{name}_bn2.bias"]

    def __call__(self, x: Tensor, convolutions: Sequence[Convolve] = ()) -> Tensor:
        """Return the block's output; ``convolutions`` may stand for its own ones."""
        y = x
        for convolution in convolutions or self.convolutions:
            y = convolution(y)
        return y.add_(x) if self._skips else y


class Lite0:
    """The network, float32. Its stages are numbered from 1 to 7; their outputs are linear maps."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        """Fold the released tensors and move them to ``device``."""
        self._stem = Convolution(weights, ("_conv_stem", "_bn0"), 2)
        self._stages: list[list[Block]] = []
        number = 0
        for repeats, stride, expansion in STAGES:
            blocks = range(number, number + repeats)
            stage = [Block(weights, n, stride if n == number else 1, expansion > 1, n > number) for n in blocks]
            self._stages.append(stage)
            number += repeats
        for convolution in (self._stem, *(c for stage in self._stages for block in stage for c in block.convolutions)):
            convolution.to(device)
        self._fused: dict[tuple[int, int, int], list[list[Convolve]]] = {}  # by side, threads and stages
        self._device = device
        self._means = [torch.stack([block.mean for block in stage]).sum(0).to(device) for stage in self._stages]

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """Return the map of every stage for uint8 ``[images, 3, S, S]``, minus its mean over the training images.

        A stage adds the outputs of its blocks up, so its mean is the sum of theirs. Stage n is
        ``[images, channels, H, W]``, float32.
        """
        own = self._fused_for(pixels.shape[-1]) if self._may_fuse and pixels.shape[-2] == pixels.shape[-1] else []
        return self._maps(pixels, own)

    def _maps(
        self, pixels: Tensor, fused_ones: Sequence[Sequence[Convolve]] = (), stages: int = len(STAGES)
    ) -> list[Tensor]:
        """Return the maps of the first ``stages``, by fused convolutions of the stem and of every block if given."""
        x, maps, own = (pixels.float() - MIDDLE) / SCALE, [], iter(fused_ones)
        x = next(own)[0](x.contiguous(memory_format=torch.channels_last)) if fused_ones else self._stem(x)
        for stage, mean in zip(self._stages[:stages], self._means, strict=False):
            for block in stage:
                x = block(x, next(own, ()))
            maps.append(x - mean[:, None, None])
        return maps

    def _fused_for(self, side: int, stages: int = len(STAGES)) -> list[list[Convolve]]:
        """Return the fused convolutions of the stem and of every block for images of that size; none for odd maps.

        oneDNN packs kernels for the number of threads: with another number a call would pack them again.
        """
        if side % STRIDE:
            return []
        key = side, torch.get_num_threads(), stages
        if key not in self._fused:
            blocks = [block.convolutions for stage in self._stages[:stages] for block in stage]
            found: list[list[Convolve]] = []
            at = side
            for convolutions in ([self._stem], *blocks):
                found.append([])
                for convolution in convolutions:
                    found[-1].append(convolution.fused(at))
                    at //= convolution.stride
            self._fused[key] = found
        return self._fused[key]

    @cached_property
    def _may_fuse(self) -> bool:
        """Whether this torch has fused convolutions, and they give the first maps, of every geometry, as plain ones."""
        if self._device.type != "cpu":
            return False
        image = torch.randint(256, (1, 3, STRIDE, STRIDE), generator=torch.Generator().manual_seed(0))
        try:
            found = self._maps(image, self._fused_for(STRIDE, CHECKED), CHECKED)
        except (AttributeError, RuntimeError):
            return False
        both = zip(found, self._maps(image, stages=CHECKED), strict=True)
        return all(bool((a - b).abs().max() <= TOLERANCE * b.abs().max()) for a, b in both)


def read_network(path: Path, device: torch.device) -> Lite0:
    """Read a file of released weights that was checked before; pickled code is refused.

    Raises:
        ModelError: the file can't be read, or misses a tensor.
    """
    with model_errors(f"{path} can't be read"), torch.inference_mode():
        return Lite0(torch.load(path, map_location="cpu", weights_only=True), device)


def _pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    height, width = (max((math.ceil(length / stride) - 1) * stride + kernel - length, 0) for length in x.shape[-2:])
    if not height and not width:
        return x
    return pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
