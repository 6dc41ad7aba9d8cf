"""Objects, poses, light and composition of procedural scenes. Every factor is drawn apart and may be shared."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from retrieval.mini.dice import Dice, Factors
from retrieval.mini.textures import COLOURS, Texture, draw_palettes, draw_textures, grid, paint

PARTS = 4
WAVES = 3
DISTRACTORS = 2


@dataclass(frozen=True)
class Shape(Factors):
    """The outline of an object: overlapping parts, each a wavy superellipse."""

    centre: Tensor  # [n, PARTS, 2], of the object's radius
    radius: Tensor  # [n, PARTS, 2]
    angle: Tensor  # [n, PARTS]
    power: Tensor  # [n, PARTS], 2 is an ellipse, large a rectangle
    waves: Tensor  # [n, PARTS, WAVES, 2], amplitude and phase of the outline's harmonics 2 to 4


@dataclass(frozen=True)
class Thing(Factors):
    """An object: its shape and its surface."""

    shape: Shape
    texture: Texture
    palette: Tensor  # [n, COLOURS, 3]
    plain: Tensor  # [n, PARTS] in {0, 1}: parts of one colour


@dataclass(frozen=True)
class Pose(Factors):
    """Where an object stands and how it is turned; everything in units of the image's side."""

    centre: Tensor  # [n, 2], (x, y) from the middle
    scale: Tensor  # [n], radius
    angle: Tensor  # [n], radians
    skew: Tensor  # [n, 2], shear, and the logarithm of the aspect ratio
    mirrored: Tensor  # bool [n]
    visible: Tensor  # bool [n]


@dataclass(frozen=True)
class Ground(Factors):
    """The background: two textures that meet at a horizon, or one."""

    upper: Texture
    lower: Texture
    palette: Tensor  # [n, COLOURS, 3]
    horizon: Tensor  # [n], height; beyond +-0.5 there is none
    tilt: Tensor  # [n]
    blurred: Tensor  # bool [n]: out of focus


@dataclass(frozen=True)
class Light(Factors):
    """A linear gradient of brightness, exposure, colour cast and gamma."""

    gradient: Tensor  # [n, 2]
    gain: Tensor  # [n, 3]
    gamma: Tensor  # [n]


def draw_shapes(dice: Dice, n: int) -> Shape:
    """Draw ``n`` outlines: a body and smaller parts around it."""
    sizes = torch.tensor([0.75, 0.5, 0.35, 0.22], device=dice.device)
    return Shape(
        centre=dice.normal(n, PARTS, 2, std=0.42) * torch.tensor([0.3, 1, 1, 1], device=dice.device)[:, None],
        radius=sizes[:, None] * dice.log_uniform(n, PARTS, 2, low=0.5, high=1.3),
        angle=dice.uniform(n, PARTS, high=math.pi),
        power=dice.log_uniform(n, PARTS, low=1.2, high=7.0),
        waves=torch.stack(
            [dice.uniform(n, PARTS, WAVES, high=0.22), dice.uniform(n, PARTS, WAVES, high=2 * math.pi)], -1
        ),
    )


def draw_things(dice: Dice, n: int) -> Thing:
    """Draw ``n`` objects."""
    plain = dice.chance(n, PARTS, p=0.45).float()
    return Thing(draw_shapes(dice, n), draw_textures(dice, n), draw_palettes(dice, n), plain)


def draw_grounds(dice: Dice, n: int) -> Ground:
    """Draw ``n`` backgrounds."""
    return Ground(
        upper=draw_textures(dice, n),
        lower=draw_textures(dice, n),
        palette=draw_palettes(dice, n),
        horizon=dice.uniform(n, low=-0.7, high=0.7),
        tilt=dice.normal(n, std=0.15),
        blurred=dice.chance(n, p=0.25),
    )


def draw_poses(dice: Dice, n: int, low: float = 0.22, high: float = 0.5, spread: float = 0.2) -> Pose:
    """Draw ``n`` poses with scales in [low, high) and centres within ``spread`` of the middle."""
    return Pose(
        centre=dice.uniform(n, 2, low=-spread, high=spread),
        scale=dice.uniform(n, low=low, high=high),
        angle=dice.normal(n, std=0.4),
        skew=dice.normal(n, 2, std=0.12),
        mirrored=dice.chance(n, p=0.5),
        visible=dice.chance(n, p=1.1),
    )


def draw_lights(dice: Dice, n: int, strength: float = 1.0) -> Light:
    """Draw ``n`` lights; a strength of 0 changes nothing."""
    return Light(
        gradient=dice.uniform(n, 2, low=-0.6, high=0.6) * strength,
        gain=(dice.normal(n, 1, std=0.18) * strength + dice.normal(n, 3, std=0.06) * strength).exp(),
        gamma=(dice.normal(n, std=0.15) * strength).exp(),
    )


def paint_ground(dice: Dice, ground: Ground, size: int) -> Tensor:
    """Render backgrounds ``[n, 3, S, S]``."""
    y, x = grid(size, dice.device)
    below = (y + ground.tilt[:, None, None] * x > ground.horizon[:, None, None])[:, None]
    upper, lower = (paint(dice, texture, ground.palette, size) for texture in (ground.upper, ground.lower))
    picture = torch.where(below, lower, upper)
    soft = interpolate(avg_pool2d(picture, size // 18), size=(size, size), mode="bilinear", align_corners=False)
    return torch.where(ground.blurred[:, None, None, None], soft, picture)


def paint_sprites(dice: Dice, things: Thing, size: int) -> Tensor:
    """Render objects on a transparent ground, ``[n, 4, S, S]`` in [0, 1], radius 1 from the middle to the edge."""
    y, x = (2.4 * c for c in grid(size, dice.device))
    surface = paint(dice, things.texture, things.palette, size)
    colour, alpha = torch.zeros_like(surface), torch.zeros_like(surface[:, :1])
    for part in range(PARTS):
        inside = _inside(things.shape, part, x, y)
        mask = (inside * size / 6).clamp(0, 1)[:, None]
        tone = things.palette[:, part % COLOURS, :, None, None]
        plain = things.plain[:, part, None, None, None]
        # The rounder a part looks, the more it stands out from a flat pattern: darker towards its outline.
        skin = (plain * tone + (1 - plain) * surface) * (0.55 + 0.45 * (2 * inside).clamp(0, 1)).sqrt()[:, None]
        colour, alpha = colour * (1 - mask) + skin * mask, torch.maximum(alpha, mask)
    return torch.cat([colour, alpha], dim=1)


def _inside(shape: Shape, part: int, x: Tensor, y: Tensor) -> Tensor:
    """Return 1 at a part's middle, 0 at its outline, negative outside: ``[n, S, S]``."""
    px, py = x - shape.centre[:, part, 0, None, None], y - shape.centre[:, part, 1, None, None]
    cos, sin = shape.angle[:, part].cos()[:, None, None], shape.angle[:, part].sin()[:, None, None]
    u = (px * cos + py * sin) / shape.radius[:, part, 0, None, None]
    v = (py * cos - px * sin) / shape.radius[:, part, 1, None, None]
    power = shape.power[:, part, None, None]
    distance = (u.abs().clamp_min(1e-4) ** power + v.abs().clamp_min(1e-4) ** power) ** (1 / power)
    turn = torch.atan2(v, u)
    for wave in range(WAVES):
        amplitude, phase = shape.waves[:, part, wave, :, None, None].unbind(1)
        distance = distance * (1 + amplitude * ((wave + 2) * turn + phase).cos())
    return 1 - distance


def place(dice: Dice, scene: Tensor, sprites: Tensor, pose: Pose) -> Tensor:
    """Lay ``sprites [n, 4, T, T]`` on ``scene [n, 3, S, S]``, with a soft shadow."""
    size = scene.shape[-1]
    y, x = grid(size, dice.device)
    px, py = x - pose.centre[:, 0, None, None], y - pose.centre[:, 1, None, None]
    cos, sin = pose.angle.cos()[:, None, None], pose.angle.sin()[:, None, None]
    aspect = pose.skew[:, 1, None, None].exp()
    flip = torch.where(pose.mirrored, -1.0, 1.0)[:, None, None]
    scale = pose.scale[:, None, None] * 1.2
    u = (px * cos + py * sin + pose.skew[:, 0, None, None] * py) * flip / (scale * aspect)
    v = (py * cos - px * sin) * aspect / scale
    laid = grid_sample(sprites, torch.stack([u, v], dim=-1), align_corners=False)
    mask = laid[:, 3:] * pose.visible[:, None, None, None]
    reach = max(size // 18, 1)
    coarse = avg_pool2d(mask.roll((reach, reach // 2), (2, 3)), reach)
    shadow = interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    return scene * (1 - 0.4 * shadow) * (1 - mask) + laid[:, :3] * mask


def shine(scene: Tensor, light: Light) -> Tensor:
    """Apply light: ``[n, 3, S, S]`` in [0, 1]."""
    y, x = grid(scene.shape[-1], scene.device)
    slope = 1 + light.gradient[:, 0, None, None] * x + light.gradient[:, 1, None, None] * y
    lit = scene * slope[:, None] * light.gain[:, :, None, None]
    return lit.clamp(1e-3, 1) ** light.gamma[:, None, None, None]
