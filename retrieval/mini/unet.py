"""A small denoising UNet with self-attention, in plain torch.

The topology is diffusers' ``UNet2DModel`` with blocks (Down, AttnDown, AttnDown) and (AttnUp, AttnUp, Up), one
layer a block, and its state dict has the same keys; a test holds both to the same numbers. It is written out
here because importing diffusers costs ten seconds and this model must answer at once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_unshuffle, scaled_dot_product_attention, silu

NETWORK_SIZE = 96  # pixels a side that the shipped weights were trained at


@dataclass(frozen=True)
class UNetShape:
    """Sizes of the network; the defaults are the shipped weights'."""

    patch: int = 4  # the image's pixels are folded into channels, patch x patch at a time
    channels: tuple[int, int, int] = (64, 96, 160)
    head_dim: int = 32
    groups: int = 16

    @property
    def folded(self) -> int:
        """Channels of the network's input and output: RGB times patch squared."""
        return 3 * self.patch**2


def fold(pixels: Tensor, patch: int) -> Tensor:
    """Turn ``[images, 3, S, S]`` into ``[images, 3 patch², S/patch, S/patch]``."""
    return pixel_unshuffle(pixels, patch)


def network_pixels(pixels: Tensor) -> Tensor:
    """Bring uint8 ``[images, 3, S, S]`` to the network's size and range: float32 ``[images, 3, 96, 96]`` in [-1, 1]."""
    values = pixels.float() / 127.5 - 1.0
    return interpolate(values, size=(NETWORK_SIZE, NETWORK_SIZE), mode="bilinear", antialias=True, align_corners=False)


class SelfAttention(nn.Module):
    """Multi-head self-attention over the positions of a feature map, with a residual connection."""

    def __init__(self, channels: int, shape: UNetShape) -> None:
        super().__init__()
        self.heads = channels // shape.head_dim
        self.group_norm = nn.GroupNorm(shape.groups, channels, eps=1e-5)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def project(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turn ``[images, channels, height, width]`` into Q, K, V ``[images, heads, tokens, head_dim]``."""
        tokens = self.group_norm(features).flatten(2).transpose(1, 2)
        q, k, v = (
            to(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v)
        )
        return q, k, v

    def forward(self, features: Tensor) -> Tensor:
        output = scaled_dot_product_attention(*self.project(features)).transpose(1, 2).flatten(2)
        mixed: Tensor = self.to_out[0](output)
        return features + mixed.transpose(1, 2).reshape(features.shape)


class ResnetBlock(nn.Module):
    """Two convolutions with the timestep's embedding added between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int, shape: UNetShape) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(shape.groups, inputs, eps=1e-5)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, outputs)
        self.norm2 = nn.GroupNorm(shape.groups, outputs, eps=1e-5)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.conv1(silu(self.norm1(features)))
        hidden = hidden + self.time_emb_proj(silu(embedding))[:, :, None, None]
        hidden = self.conv2(silu(self.norm2(hidden)))
        result: Tensor = self.conv_shortcut(features) + hidden
        return result


class Resample(nn.Module):
    """A convolution that halves the resolution, or doubles it after nearest-neighbour upsampling."""

    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        if self.up:
            features = interpolate(features, scale_factor=2.0, mode="nearest")
        result: Tensor = self.conv(features)
        return result


class Stage(nn.Module):
    """Resnet blocks, each followed by self-attention where the stage has it, then an optional change of resolution."""

    def __init__(
        self,
        widths: list[tuple[int, int]],
        embedding: int,
        shape: UNetShape,
        attention: bool,
        resample: str = "",
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(i, o, embedding, shape) for i, o in widths)
        self.attentions = nn.ModuleList(SelfAttention(o, shape) for _, o in widths if attention)
        if resample:
            changes = nn.ModuleList([Resample(widths[-1][1], up=resample == "upsamplers")])
            self.add_module(resample, changes)
        self.resample = resample

    def step(self, number: int, features: Tensor, embedding: Tensor) -> Tensor:
        """Run resnet ``number`` and the attention after it."""
        features = self.resnets[number](features, embedding)
        return self.attentions[number](features) if len(self.attentions) else features

    def change(self, features: Tensor) -> Tensor:
        """Change the resolution."""
        changes = self.get_submodule(self.resample)
        assert isinstance(changes, nn.ModuleList)
        result: Tensor = changes[0](features)
        return result


class TimeEmbedding(nn.Module):
    """Sinusoids of the timestep through two linear layers."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.width = width
        self.linear_1 = nn.Linear(width, embedding)
        self.linear_2 = nn.Linear(embedding, embedding)

    def forward(self, timestep: Tensor) -> Tensor:
        half = self.width // 2
        exponents = torch.arange(half, device=timestep.device) * (-math.log(10000.0) / half)
        angles = timestep[:, None].float() * exponents.exp()
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(self.linear_1.weight.dtype)
        result: Tensor = self.linear_2(silu(self.linear_1(waves)))
        return result


class MiniUNet(nn.Module):
    """Predict the noise in ``[images, 3 patch², S/patch, S/patch]`` at ``timestep [images]``; same shape out."""

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        a, b, c = shape.channels
        embedding = 4 * a
        self.time_embedding = TimeEmbedding(a, embedding)
        self.conv_in = nn.Conv2d(shape.folded, a, 3, padding=1)
        self.down_blocks = nn.ModuleList(
            [
                Stage([(a, a)], embedding, shape, attention=False, resample="downsamplers"),
                Stage([(a, b)], embedding, shape, attention=True, resample="downsamplers"),
                Stage([(b, c)], embedding, shape, attention=True),
            ]
        )
        self.mid_block = Stage([(c, c), (c, c)], embedding, shape, attention=True)
        del self.mid_block.attentions[1]  # resnet, attention, resnet
        self.up_blocks = nn.ModuleList(
            [
                Stage([(c + c, c), (c + b, c)], embedding, shape, attention=True, resample="upsamplers"),
                Stage([(c + b, b), (b + a, b)], embedding, shape, attention=True, resample="upsamplers"),
                Stage([(b + a, a), (a + a, a)], embedding, shape, attention=False),
            ]
        )
        self.conv_norm_out = nn.GroupNorm(shape.groups, a, eps=1e-5)
        self.conv_out = nn.Conv2d(a, shape.folded, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        embedding = self.time_embedding(timestep)
        features = self.conv_in(sample)
        skips = [features]
        for stage in self.down_blocks:
            assert isinstance(stage, Stage)
            features = stage.step(0, features, embedding)
            skips.append(features)
            if stage.resample:
                features = stage.change(features)
                skips.append(features)
        features = self.mid_block.step(0, features, embedding)
        features = self.mid_block.resnets[1](features, embedding)
        for stage in self.up_blocks:
            assert isinstance(stage, Stage)
            for number in range(len(stage.resnets)):
                features = stage.step(number, torch.cat([features, skips.pop()], dim=1), embedding)
            if stage.resample:
                features = stage.change(features)
        result: Tensor = self.conv_out(silu(self.conv_norm_out(features)))
        return result

    def attention_layers(self) -> Mapping[str, SelfAttention]:
        """Return the last attention of every block that has one, by layer, in the order of the forward pass."""
        stages = {"D_1": self.down_blocks[1], "D_2": self.down_blocks[2], "M": self.mid_block}
        stages |= {"U_0": self.up_blocks[0], "U_1": self.up_blocks[1]}
        layers: dict[str, SelfAttention] = {}
        for name, stage in stages.items():
            last = stage.get_submodule("attentions")
            assert isinstance(last, nn.ModuleList)
            attention = last[-1]
            assert isinstance(attention, SelfAttention)
            layers[name] = attention
        return layers
