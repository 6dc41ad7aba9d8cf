"""Groups of procedural pictures that are alike in one respect and differ in all others, with hard negatives.

====================  ==========================================  =====================================================
kind                  what a group shares                         what its members draw for themselves
====================  ==========================================  =====================================================
``style``             palette, textures, treatment                objects, poses, horizon, noise
``instance``          one object (shape, surface, colours)        pose, scale, light, background, distractors
``layout``            shapes, poses, horizon                      palettes, textures, treatment, light
====================  ==========================================  =====================================================

Groups come in families, and the groups of a family are hard to tell apart by construction. Style: one palette and
several textures, or one texture and treatment in several palettes. Instance: objects of one palette, or objects
before the same backgrounds. A part of the groups is grey in all views, and a part of the batches has the colour
moments of all pictures equalised, so that neither colour nor texture alone is ever enough.
"""

from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from retrieval.errors import UsageError
from retrieval.mini.dice import Dice
from retrieval.mini.filters import Filter, blur, draw_filters, luma, treat
from retrieval.mini.scenes import (
    DISTRACTORS,
    Ground,
    Light,
    Pose,
    Thing,
    draw_grounds,
    draw_lights,
    draw_poses,
    draw_things,
    paint_ground,
    paint_sprites,
    place,
    shine,
)
from retrieval.vocabulary import WorldKind

SIZE = 144


@dataclass(frozen=True)
class Hardness:
    """How often neighbouring groups are made hard to tell apart."""

    family: int = 4  # groups
    same_palette: float = 0.35  # families that share colours
    same_other: float = 0.35  # families that share textures and treatment (style) or backgrounds (instance)
    grey: float = 0.15  # groups without colour
    equalised: float = 0.2  # batches in which every picture has the same colour moments


@dataclass(frozen=True)
class Scene:
    """Everything that a batch of pictures is rendered from; ``sprite`` names each picture's row of ``things``."""

    ground: Ground
    things: Thing
    sprite: Tensor  # int64 [n]
    pose: Pose
    others: tuple[tuple[Thing, Pose], ...]
    light: Light
    treatment: Filter


@torch.no_grad()
def make_groups(
    kind: WorldKind,
    groups: int,
    views: int = 2,
    *,
    seed: int,
    size: int = SIZE,
    hardness: Hardness | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Render a batch; equal arguments give equal pictures.

    Returns:
        uint8 ``[groups, views, 3, size, size]`` on ``device``.

    Raises:
        UsageError: an unknown kind.
    """
    if kind not in get_args(WorldKind):
        raise UsageError(f"unknown kind of world '{kind}'; known: {', '.join(get_args(WorldKind))}")
    dice, hard = Dice(seed, device), hardness or Hardness()
    draw = {"style": _style_scene, "instance": _instance_scene, "layout": _layout_scene}[kind]
    pictures = _sensor(dice, render(dice, draw(dice, groups, views, hard), size))
    grey = dice.chance(groups, p=hard.grey).repeat_interleave(views)
    pictures[grey] = luma(pictures[grey]).expand(-1, 3, -1, -1)
    if bool(dice.chance(1, p=hard.equalised)):
        pictures = equalise(pictures)
    levels = (255 * pictures.clamp(0, 1)).round().to(torch.uint8)
    return levels.view(groups, views, *levels.shape[1:])


def render(dice: Dice, scene: Scene, size: int) -> Tensor:
    """Render ``[n, 3, size, size]`` in [0, 1]."""
    picture = paint_ground(dice, scene.ground, size)
    for thing, pose in scene.others:
        picture = place(dice, picture, paint_sprites(dice, thing, size // 3), pose)
    sprites = paint_sprites(dice, scene.things, size * 2 // 3)  # once an object: its texture is the same in every view
    picture = place(dice, picture, sprites[scene.sprite], scene.pose)
    return treat(dice, shine(picture, scene.light), scene.treatment)


def equalise(pictures: Tensor) -> Tensor:
    """Give every picture of ``[n, 3, S, S]`` the mean and deviation of the batch's first one, channel by channel."""
    mean, std = pictures.mean(dim=(2, 3), keepdim=True), pictures.std(dim=(2, 3), keepdim=True) + 0.05
    return ((pictures - mean) / std * std[:1].clamp(0.12, 0.3) + mean[:1].clamp(0.35, 0.65)).clamp(0, 1)


def _sensor(dice: Dice, pictures: Tensor) -> Tensor:
    """Blur half of the pictures slightly and add noise to half of them: no two photographs are alike in this."""
    blurred = dice.chance(len(pictures), 1, 1, 1, p=0.5)
    weight = dice.uniform(len(pictures), 1, 1, 1, high=0.6) * blurred
    noisy = dice.uniform(len(pictures), 1, 1, 1, high=0.03) * dice.chance(len(pictures), 1, 1, 1, p=0.5)
    return pictures * (1 - weight) + blur(pictures, 1) * weight + noisy * dice.normal(*pictures.shape)


def _family(dice: Dice, groups: int, hard: Hardness) -> tuple[Tensor, Tensor, Tensor]:
    """Return each group's first relative, and which groups share palettes, which share the other thing, with it."""
    number = torch.arange(groups, device=dice.device)
    first = number - number % hard.family
    fate = dice.uniform(groups)[first]
    return first, fate < hard.same_palette, (fate >= hard.same_palette) & (fate < hard.same_palette + hard.same_other)


def _shared(own: Tensor, first: Tensor, share: Tensor) -> Tensor:
    """Return the row of each group, or of its first relative where ``share``."""
    return torch.where(share, first, own)


def _others(dice: Dice, n: int, palette: Tensor | None = None) -> tuple[tuple[Thing, Pose], ...]:
    """Draw further objects, each visible in half of the pictures, in ``palette`` where one is given."""
    found = []
    for _ in range(DISTRACTORS):
        thing, pose = draw_things(dice, n), draw_poses(dice, n, low=0.08, high=0.28, spread=0.5)
        thing = thing if palette is None else replace(thing, palette=palette)
        found.append((thing, replace(pose, visible=dice.chance(n, p=0.5))))
    return tuple(found)


def _style_scene(dice: Dice, groups: int, views: int, hard: Hardness) -> Scene:
    n, own = groups * views, torch.arange(groups, device=dice.device)
    first, palettes, rest = _family(dice, groups, hard)
    ground, thing, treatment = draw_grounds(dice, groups), draw_things(dice, groups), draw_filters(dice, groups)
    of = own.repeat_interleave(views)
    colours = ground.palette[_shared(own, first, palettes)][of]
    rows = _shared(own, first, rest)[of]
    mine = treatment.take(rows)
    inks = treatment.inks[_shared(own, first, palettes)][of]  # the inks go with the palette, not with the texture
    scenery = replace(ground.take(rows), palette=colours, horizon=dice.uniform(n, low=-0.7, high=0.7))
    things = replace(draw_things(dice, n), texture=thing.texture.take(rows), palette=colours)
    pose = draw_poses(dice, n, low=0.12, high=0.5, spread=0.35)
    return Scene(
        ground=scenery,
        things=things,
        sprite=torch.arange(n, device=dice.device),
        pose=replace(pose, visible=dice.chance(n, p=0.85)),
        others=tuple((replace(t, texture=things.texture), p) for t, p in _others(dice, n, colours)),
        light=draw_lights(dice, n, 0.3),
        treatment=replace(mine, inks=inks),
    )


def _instance_scene(dice: Dice, groups: int, views: int, hard: Hardness) -> Scene:
    n, own = groups * views, torch.arange(groups, device=dice.device)
    first, palettes, backgrounds = _family(dice, groups, hard)
    things = draw_things(dice, groups)
    things = replace(things, palette=things.palette[_shared(own, first, palettes)])
    view = torch.arange(views, device=dice.device)
    stage = (_shared(own, first, backgrounds)[:, None] * views + view).flatten()
    return Scene(
        ground=draw_grounds(dice, n).take(stage),
        things=things,
        sprite=own.repeat_interleave(views),
        pose=draw_poses(dice, n, low=0.2, high=0.48, spread=0.28),
        others=_others(dice, n),
        light=draw_lights(dice, n),
        treatment=draw_filters(dice, n, none=0.9),
    )


def _layout_scene(dice: Dice, groups: int, views: int, hard: Hardness) -> Scene:
    n, of = groups * views, torch.arange(groups, device=dice.device).repeat_interleave(views)
    plan, shapes = draw_grounds(dice, groups), draw_things(dice, groups)
    pose = draw_poses(dice, groups, low=0.2, high=0.5, spread=0.3).take(of)
    ground, things = draw_grounds(dice, n), draw_things(dice, n)
    return Scene(
        ground=replace(ground, horizon=plan.horizon[of], tilt=plan.tilt[of]),
        things=replace(things, shape=shapes.shape.take(of)),
        sprite=torch.arange(n, device=dice.device),
        pose=replace(pose, scale=pose.scale * dice.log_uniform(n, low=0.85, high=1.18)),
        others=_others(dice, n),
        light=draw_lights(dice, n),
        treatment=draw_filters(dice, n, none=0.5),
    )
