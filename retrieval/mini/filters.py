"""What a style does to a finished picture: print, paint, pencil, lens. All batched, ``[n, 3, S, S]`` in [0, 1]."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from retrieval.mini.dice import Dice, Factors
from retrieval.mini.textures import draw_palettes, grid, noise

SEEDS = 160  # of the mosaic
SMEAR_STEPS = 6


@dataclass(frozen=True)
class Filter(Factors):
    """A treatment: its kind, two strengths in [0, 1], a direction and two inks."""

    kind: Tensor  # int64 [n], index into FILTERS
    a: Tensor  # [n]
    b: Tensor  # [n]
    angle: Tensor  # [n], radians
    inks: Tensor  # [n, 2, 3], paper and ink


def draw_filters(dice: Dice, n: int, none: float = 0.15) -> Filter:
    """Draw ``n`` treatments, the share ``none`` of which does nothing."""
    inks = draw_palettes(dice, n)[:, :2]
    kind = torch.where(dice.chance(n, p=none), 0, 1 + dice.integers(n, below=len(FILTERS) - 1))
    paper_and_ink = torch.stack([0.7 + 0.3 * inks[:, 0], 0.45 * inks[:, 1]], dim=1)
    return Filter(kind, dice.uniform(n), dice.uniform(n), dice.uniform(n, high=math.pi), paper_and_ink)


def treat(dice: Dice, pictures: Tensor, filters: Filter) -> Tensor:
    """Apply to each picture its treatment; those of one kind are computed together."""
    result = pictures.clone()
    for number, function in enumerate(FILTERS.values()):
        rows = torch.nonzero(filters.kind == number)[:, 0]
        if number and len(rows):
            result[rows] = function(dice, pictures[rows], filters.take(rows)).clamp(0, 1)
    return result


def luma(pictures: Tensor) -> Tensor:
    """Return ``[n, 1, S, S]``."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=pictures.device)
    return (pictures * weights[:, None, None]).sum(dim=1, keepdim=True)


def blur(pictures: Tensor, radius: int) -> Tensor:
    """Smooth with two box filters of ``radius`` pixels."""
    for kernel, padding in 2 * [((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))]:
        pictures = avg_pool2d(pictures, kernel, 1, padding, count_include_pad=False)
    return pictures


def _wide(value: Tensor) -> Tensor:
    return value[:, None, None, None]


def _inked(filters: Filter, paper: Tensor) -> Tensor:
    """Mix paper and ink, ``paper [n, 1, S, S]`` saying how much paper there is."""
    return filters.inks[:, 0, :, None, None] * paper + filters.inks[:, 1, :, None, None] * (1 - paper)


def _turned(filters: Filter, pictures: Tensor) -> tuple[Tensor, Tensor]:
    y, x = grid(pictures.shape[-1], pictures.device)
    cos, sin = filters.angle.cos()[:, None, None], filters.angle.sin()[:, None, None]
    return (x * cos + y * sin)[:, None], (y * cos - x * sin)[:, None]


def _edges(pictures: Tensor) -> Tensor:
    smooth = blur(luma(pictures), 1)
    dx, dy = (smooth - smooth.roll(1, axis) for axis in (2, 3))
    return torch.hypot(dx, dy)


def _none(dice: Dice, p: Tensor, f: Filter) -> Tensor:
    return p


def _posterise(dice: Dice, p: Tensor, f: Filter) -> Tensor:
    levels = _wide((2 + 4 * f.a).floor())
    return (p * levels).round() / levels


def _halftone(dice: Dice, p: Tensor, f: Filter) -> Tensor:
    u, v = _turned(f, p)
    period = _wide(16 + 24 * f.a) * 2 * math.pi
    screen = 0.5 + 0.25 * ((u * period).cos() + (v * period).cos())
    return torch.where(_wide(f.b) < 0.5, _inked(f, (luma(p) > screen).float()), 0.15 * p + 0.85 * (p > screen))


def _ink(dice: Dice, p: Tensor, f: Filter) -> Tensor:
    return p * (1 - (_edges(p) * _wide(4 + 10 * f.a)).clamp(0, 1))


def _pencil(dice: Dice, p: Tensor, f: Filter) -> Tensor:
    lines = (_edges(p) * _wide(6 + 14 * f.a)).clamp(0, 1)
    return _inked(f, 1 - lines) + dice.normal(len(p), 1, *p.shape[2:], std=0.03)


def _pixels(dice: Dice, p: Tensor, f: Filter) -> Tensor:
    small = interpolate(p, size=(12, 12), mode="area"), interpolate(p, size=(32, 32), mode="area")
    chosen = [interpolate(s, size=p.shape[2:], mode="nearest") for s in small]
    return torch.where(_wide(f.a) < 0.5, chosen[0], chosen[1])


def _mosaic(dice: Dice, p: Tensor, f: Filter) -> Tensor:
    y, x = grid(p.shape[-1], p.device)
    seeds = dice.uniform(len(p), SEEDS, 2, low=-0.5, high=0.5)
    places = torch.stack([x, y], dim=-1).flatten(0, 1).expand(len(p), -1, -1)
    nearest = torch.cdist(places, seeds).argmin(dim=-1)
    colours = grid_sample(p, 2 * seeds[:, None], align_corners=False)[:, :, 0]
    return colours.gather(2, nearest[:, None].expand(-1, 3, -1)).view_as(p)


def _hatch(dice: Dice, p: Tensor, f: Filter) -> Tensor:
    grey, paper = luma(p), torch.ones_like(p[:, :1])
    for turn, threshold in enumerate((0.75, 0.5, 0.28)):
        u, _ = _turned(Filter(f.kind, f.a, f.b, f.angle + turn * math.pi / 3, f.inks), p)
        lines = (2 * math.pi * _wide(18 + 20 * f.a) * u).sin() > 0.2
        paper = torch.where((grey < threshold) & lines, 0.0, paper)
    return _inked(f, paper)


def _grain(dice: Dice, p: Tensor, f: Filter) -> Tensor:
    coloured = dice.normal(*p.shape)
    grain = torch.where(_wide(f.b) < 0.5, coloured[:, :1], coloured)
    return p + grain * _wide(0.05 + 0.15 * f.a)


def _soft(dice: Dice, p: Tensor, f: Filter) -> Tensor:
    return 0.85 * torch.where(_wide(f.a) < 0.5, blur(p, 1), blur(p, 3)) + 0.15 * f.inks[:, 0, :, None, None]


def _duotone(dice: Dice, p: Tensor, f: Filter) -> Tensor:
    return _inked(f, (0.5 + 1.6 * (luma(p) - luma(p).mean(dim=(2, 3), keepdim=True))).clamp(0, 1))


def _emboss(dice: Dice, p: Tensor, f: Filter) -> Tensor:
    grey = luma(p)
    return 0.5 + 2 * (grey - grey.roll((1, 1), (2, 3))) + (p - 0.5) * _wide(0.6 * f.a)


def _glow(dice: Dice, p: Tensor, f: Filter) -> Tensor:
    y, x = grid(p.shape[-1], p.device)
    bright = blur((p - 0.5).clamp_min(0), 4)
    return (p + 1.4 * bright) * (1 - (torch.hypot(x, y) * _wide(1.3 * f.a)).clamp(0, 0.9))


def _smear(dice: Dice, p: Tensor, f: Filter) -> Tensor:
    """Brush strokes: the mean along a smooth flow of directions, then bristles of noise smeared alike."""
    size = p.shape[-1]
    y, x = grid(size, p.device)
    field = noise(dice, size, 2.0 + 0 * f.a, 1.0 + 0 * f.a, f.angle)
    direction = f.angle[:, None, None] + (field - 0.5) * 2 * math.pi * f.b[:, None, None]
    step = torch.stack([direction.cos(), direction.sin()], dim=-1) * (2 * (1 + 2 * f.a[:, None, None, None]) / size)
    bristles = torch.cat([p, dice.normal(len(p), 1, size, size)], dim=1)
    here = torch.stack([2 * x, 2 * y], dim=-1)
    offsets = torch.arange(SMEAR_STEPS, device=p.device) - (SMEAR_STEPS - 1) / 2
    strokes = torch.stack(
        [grid_sample(bristles, here + o * step, padding_mode="border", align_corners=False) for o in offsets]
    ).mean(dim=0)
    return strokes[:, :3] + 0.12 * strokes[:, 3:]


Treatment = Callable[[Dice, Tensor, Filter], Tensor]
FILTERS: Mapping[str, Treatment] = {
    "none": _none,
    "posterise": _posterise,
    "halftone": _halftone,
    "ink": _ink,
    "pencil": _pencil,
    "pixels": _pixels,
    "mosaic": _mosaic,
    "hatch": _hatch,
    "grain": _grain,
    "soft": _soft,
    "duotone": _duotone,
    "emboss": _emboss,
    "glow": _glow,
    "smear": _smear,
}
