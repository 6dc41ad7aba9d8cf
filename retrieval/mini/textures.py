"""Procedural textures: a scalar field by kind and parameters, coloured by a palette. All batched, ``[n, S, S]``."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from retrieval.mini.dice import Dice, Factors

COLOURS = 5  # of a palette
CELLS = 48  # points of the cellular kinds
KINDS = ("fbm", "marble", "grating", "rings", "checker", "dots", "cells", "cracks", "network", "bricks", "strokes")


@dataclass(frozen=True)
class Texture(Factors):
    """What all renderings of one texture share; every one draws its own noise."""

    kind: Tensor  # int64 [n], index into KINDS
    frequency: Tensor  # [n], periods over the image
    angle: Tensor  # [n], radians
    roughness: Tensor  # [n], spectral exponent of noise: low is fine-grained
    stretch: Tensor  # [n], anisotropy of noise, 1 is none
    warp: Tensor  # [n], displacement of the coordinates
    steps: Tensor  # bool [n]: flat areas of palette colours instead of gradients
    weights: Tensor  # [n, 2, 8, 8], layers of the kind "network"


def draw_textures(dice: Dice, n: int) -> Texture:
    """Draw ``n`` textures."""
    return Texture(
        kind=dice.integers(n, below=len(KINDS)),
        frequency=dice.log_uniform(n, low=2.0, high=26.0),
        angle=dice.uniform(n, high=math.pi),
        roughness=dice.uniform(n, low=0.6, high=2.6),
        stretch=torch.where(dice.chance(n, p=0.4), dice.log_uniform(n, low=1.0, high=7.0), 1.0),
        warp=torch.where(dice.chance(n, p=0.6), dice.uniform(n, high=0.3), 0.0),
        steps=dice.chance(n, p=0.35),
        weights=dice.normal(n, 2, 8, 8, std=1.4),
    )


def draw_palettes(dice: Dice, n: int) -> Tensor:
    """Draw ``n`` palettes, ``[n, COLOURS, 3]`` in [0, 1]: hues around one, two or three anchors, or anywhere."""
    anchors = 1 + dice.integers(n, below=4)  # 4: anywhere
    hue = dice.uniform(n, 1) + dice.integers(n, COLOURS, below=12) % anchors[:, None] / anchors[:, None]
    hue = torch.where(anchors[:, None] == 4, dice.uniform(n, COLOURS), hue + dice.normal(n, COLOURS, std=0.03))
    level = dice.uniform(n, 1) ** 0.7  # of saturation; greyish worlds exist as well
    saturation = (level + dice.normal(n, COLOURS, std=0.15)).clamp(0, 1)
    bright, spread = dice.uniform(n, 1, low=0.35, high=0.8), dice.uniform(n, 1, low=0.1, high=0.35)
    value = (bright + spread * dice.normal(n, COLOURS)).clamp(0.03, 1)
    corner = (hue[..., None] * 6 + torch.tensor([0.0, 4.0, 2.0], device=dice.device)) % 6
    pure = ((corner - 3).abs() - 1).clamp(0, 1)
    return value[..., None] * (1 - saturation[..., None] * (1 - pure))


def grid(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return y and x of the pixels' centres, each ``[S, S]``, in (-0.5, 0.5)."""
    line = (torch.arange(size, device=device) + 0.5) / size - 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    return y, x


def standardise(field: Tensor) -> Tensor:
    """Bring each field to mean 0.5 and standard deviation 0.25, clipped to [0, 1]."""
    centred = field - field.mean(dim=(1, 2), keepdim=True)
    return (0.5 + 0.25 * centred / (centred.std(dim=(1, 2), keepdim=True) + 1e-6)).clamp(0, 1)


def noise(dice: Dice, size: int, roughness: Tensor, stretch: Tensor, angle: Tensor) -> Tensor:
    """Return noise with amplitude spectrum ``|f|^-roughness``, stretched along ``angle``: ``[n, S, S]`` in [0, 1]."""
    fy = torch.fft.fftfreq(size, device=dice.device)[:, None]
    fx = torch.fft.rfftfreq(size, device=dice.device)[None]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = fx * cos + fy * sin, (fy * cos - fx * sin) / stretch[:, None, None]
    radius = (along * stretch[:, None, None]).square() + across.square()
    amplitude = radius.sqrt().clamp_min(1 / size) ** -roughness[:, None, None]
    spectrum = torch.fft.rfft2(dice.normal(len(angle), size, size)) * amplitude
    return standardise(torch.fft.irfft2(spectrum, s=(size, size)))


def paint(dice: Dice, texture: Texture, palette: Tensor, size: int) -> Tensor:
    """Render ``[n, 3, S, S]`` in [0, 1]; ``palette`` is ``[n, COLOURS, 3]``."""
    field = fields_of(dice, texture, size)
    position = field.clamp(0, 1) * (COLOURS - 1)
    low = position.floor().clamp(max=COLOURS - 2)
    weight = torch.where(texture.steps[:, None, None], (position - low).round(), position - low)[:, None]
    rows = torch.arange(len(field), device=field.device)[:, None, None]
    first, second = (palette[rows, low.long() + k].permute(0, 3, 1, 2) for k in (0, 1))
    return first * (1 - weight) + second * weight


def fields_of(dice: Dice, texture: Texture, size: int) -> Tensor:
    """Return the scalar fields ``[n, S, S]`` in [0, 1]; items of one kind are computed together."""
    y, x = grid(size, dice.device)
    n = len(texture)
    bend = [noise(dice, size, *torch.tensor([[2.0], [1.0], [0.0]], device=dice.device).expand(3, n)) for _ in range(2)]
    x, y = (c + texture.warp[:, None, None] * (b - 0.5) for c, b in zip((x, y), bend, strict=True))
    cos, sin = texture.angle.cos()[:, None, None], texture.angle.sin()[:, None, None]
    shift = dice.uniform(2, n, 1, 1, low=-0.5, high=0.5)
    u, v = x * cos + y * sin + shift[0], y * cos - x * sin + shift[1]
    result = torch.empty_like(u)
    for number, name in enumerate(KINDS):
        rows = torch.nonzero(texture.kind == number)[:, 0]
        if len(rows):
            result[rows] = _field(dice, name, texture.take(rows), u[rows], v[rows], size)
    return result


def _field(dice: Dice, kind: str, t: Texture, u: Tensor, v: Tensor, size: int) -> Tensor:
    f = t.frequency[:, None, None]
    if kind == "fbm":
        return noise(dice, size, t.roughness, t.stretch, t.angle)
    if kind == "strokes":  # short, thin, all along one direction
        return noise(dice, size, 0.6 + 0.3 * t.roughness, 3 + t.stretch, t.angle)
    if kind == "marble":
        return _wave(f / 3 * (u + noise(dice, size, 1.5 + 0 * t.angle, t.stretch, t.angle)))
    if kind == "grating":
        return _wave(f * u)
    if kind == "rings":
        return _wave(f * torch.hypot(u, v))
    if kind == "checker":
        return ((u * f).floor() + 2 * (v * f).floor()) % COLOURS / (COLOURS - 1)
    if kind == "dots":
        away = (((u * f) % 1 - 0.5).square() + ((v * f) % 1 - 0.5).square()).sqrt()
        return (1.2 - 2.4 * away).clamp(0, 1)
    if kind == "bricks":
        row = (v * f).floor()
        column = u * f / 2 + 0.5 * (row % 2)
        mortar = torch.minimum(column % 1, (v * f) % 1) < 0.12
        tone = 0.3 + 0.7 * (((column.floor() * 12.9898 + row * 78.233).sin() * 43758.5) % 1)
        return torch.where(mortar, 0.0, tone)
    if kind == "network":
        return _network(t, u, v)
    return _cellular(dice, kind, u, v)


def _wave(phase: Tensor) -> Tensor:
    return 0.5 + 0.5 * (2 * math.pi * phase).sin()


def _network(t: Texture, u: Tensor, v: Tensor) -> Tensor:
    """Run the coordinates through a small random network (a CPPN): smooth shapes, organised as a whole."""
    scale = (t.frequency[:, None, None] / 4).clamp(max=4)
    ones = torch.ones_like(u)
    inputs = [u * scale, v * scale, torch.hypot(u, v) * scale, ones, u * v * scale, u.abs() * scale, v.abs(), ones]
    hidden = torch.stack(inputs, dim=-1).flatten(1, 2)
    hidden = (hidden @ t.weights[:, 0]).sin()
    return standardise((hidden @ t.weights[:, 1]).tanh().mean(dim=-1).view_as(u))


def _cellular(dice: Dice, kind: str, u: Tensor, v: Tensor) -> Tensor:
    points = dice.uniform(len(u), CELLS, 2, low=-0.75, high=0.75)
    distance = torch.cdist(torch.stack([u, v], dim=-1).flatten(1, 2), points)
    if kind == "cells":  # each cell of one tone
        nearest = distance.argmin(dim=-1)
        return dice.uniform(len(u), CELLS).gather(1, nearest).view_as(u)
    near = distance.topk(2, largest=False).values
    return standardise((near[..., 1] - near[..., 0]).view_as(u))
