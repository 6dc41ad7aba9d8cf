"""The styles of the sample images: each is a function that renders a scene in one material.

A renderer takes an :class:`~retrieval.sample_images.canvas.Art` and returns float32 ``[side, side, 3]``, 0 to 255, at
the art's working size. Lengths are in the art's units, so that a style looks the same at every size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from retrieval.sample_images.motifs import Array

if TYPE_CHECKING:
    from retrieval.sample_images.canvas import Art

_SKY, _GLOW, _FAR, _GROUND, _WATER, _LEAF, _MAIN, _SHADE, _ACCENT, _PALE, _DARK = range(11)
_TONE = np.array([0.14, 0.05, 0.34, 0.42, 0.5, 0.62, 0.5, 0.78, 0.36, 0.0, 1.0], np.float32)
"""The ink of each role in styles with a single ink."""
_TWO_INKS = np.array(
    [[10, 62, 42, 12, 4, 30, 95, 88, 72, 0, 70], [12, 0, 30, 62, 82, 92, 8, 72, 0, 0, 100]], np.float32
)
"""Per cent of each of two inks, by role."""


def _mix(under: Array, over: Array, cover: Array) -> Array:
    return np.asarray(under + (over - under) * cover[..., None])


def _ramp(field: Array, low: float | Array, high: float | Array) -> Array:
    return np.clip((field - low) / (high - low), 0, 1)


def _fills(hues: Array) -> list[tuple[int, ...]]:
    return [tuple(hue) for hue in np.clip(hues, 0, 255).astype(int).tolist()]


def _poster(art: Art) -> Array:
    x, y = art.sun()
    rays = np.sin(14 * np.arctan2(art.y - y, art.x - x)) > 0
    dim = np.where(art.roles == _SKY, np.where(rays, 0.93, 1), np.where(art.light < -0.25, 0.86, 1))
    return _mix(art.palette[_PALE], art.paint() * dim.astype(np.float32)[..., None], art.inside(0.03))


def _papercut(art: Art) -> Array:
    unit, picture = art.unit, Image.new("RGB", (art.side, art.side))
    for role, points in art.scene:
        mask = Image.new("L", picture.size)
        ImageDraw.Draw(mask).polygon((points * art.side).ravel().tolist(), fill=255)
        left, top, right, low = mask.getbbox() or (0, 0, 1, 1)
        pad = round(12 * unit)
        cut = mask.crop((left - pad, top - pad, right + pad, low + pad))
        shadow = cut.filter(ImageFilter.GaussianBlur(3.5 * unit)).point([level * 11 // 20 for level in range(256)])
        edge, face = _fills(np.stack([art.palette[role] * 0.6 + 102, art.palette[role]]))
        for colour, shape, dx, dy in (((20, 12, 40), shadow, 2.5, 4), (edge, cut, 0, 0), (face, cut, 1, 1.2)):
            picture.paste(colour, (left - pad + round(dx * unit), top - pad + round(dy * unit)), shape)
    return np.asarray(np.asarray(picture) + 5 * (art.noise(160) + art.noise(320, 80))[..., None])


def _watercolour(art: Art) -> Array:
    ids = art.warp(art.warp(art.ids, 1.8, 55), 3.5, 12)
    wet = _ramp(art.noise(6), 0.1, 0.8)
    wash = art.palette[art.role_of[ids]]
    wash = _mix(wash, art.blur(wash, 5), wet)
    rim = art.blur(art.edges(1.2, ids) * 255, 1.3) / 255
    grain = 0.10 * art.noise(150) + 0.08 * art.noise(90)
    density = 0.98 + 0.3 * art.noise(6) + 0.22 * art.noise(16) + 0.1 * art.noise(48) + grain
    density = density - 0.25 * art.light + 0.9 * rim * (1 - 0.7 * wet)
    border = np.minimum(np.minimum(art.x, art.side - art.x), np.minimum(art.y, art.side - art.y)) / art.unit
    density = np.clip(density, 0.1, 2.4) * _ramp(border + 5 * art.noise(14) + 2 * art.noise(60), 8, 14)
    return np.asarray(np.array([252, 249, 241]) * (wash / 255) ** density[..., None] + 30 * grain[..., None])


def _ink(art: Art) -> Array:
    tone = _TONE[art.roles] - 0.2 * art.light
    cover = np.maximum(art.warp(art.edges(1.7), 1.2, 40), art.roles == _DARK)
    for angle, start in ((0.8, 0.16), (-0.75, 0.42), (0.05, 0.62), (1.55, 0.8)):
        lines = art.screen(angle, 4.8, 0.35) + 0.12 * art.noise(70)
        width = np.clip(0.08 + (tone - start), 0, 0.5) * (tone > start)
        cover = np.maximum(cover, _ramp(lines, 1.0 - width, 1.12 - width) * (width > 0))
    paper = art.palette[0] * (1 - 0.12 * tone[..., None]) + 4 * (art.noise(120) + art.noise(8))[..., None]
    return _mix(paper, art.palette[1], cover * 0.96)


def _halftone(art: Art) -> Array:
    dots = (art.screen(0.7, 6.5) + art.screen(0.7 + np.pi / 2, 6.5)) / 2
    sky = art.roles == _SKY
    shade, pale = _ramp(0.2 - art.light, 0, 1.5) * ~sky, _ramp(art.y / art.side, 0.0, 0.75) * sky
    flat = art.paint()
    flat = _mix(flat, flat * 0.55, _ramp(dots, 0.93 - shade * 0.62, 1 - shade * 0.62) * (shade > 0.04))
    flat = _mix(flat, np.array([255]), _ramp(dots, 0.98 - pale * 0.6, 1.05 - pale * 0.6) * sky)
    return _mix(flat, art.palette[_DARK], art.edges(2.4))


def _stained(art: Art) -> Array:
    pieces = art.cells(38) * (art.roles != _DARK) * 256 + art.ids
    lead = art.edges(2.2, pieces)
    shine = art.rng.uniform(0.8, 1.25, 4096).astype(np.float32)[pieces * 7919 % 4096]
    tint = art.rng.uniform(-16, 16, (4096, 3)).astype(np.float32)[pieces * 104729 % 4096]
    inner = art.blur(255 * (1 - lead), 4) / 255
    streak = 0.1 * art.noise(14, 40) + 0.06 * art.noise(60, 24)
    glass = (art.paint(14) + tint) * (shine * (0.5 + 0.8 * inner) + streak)[..., None]
    bevel = 90 * np.clip(lead - np.roll(lead, (1, 1), axis=(0, 1)), 0, 1)
    return _mix(glass, np.array([26, 25, 32]) + bevel[..., None], lead)


def _pointillism(art: Art) -> Array:
    canvas = Image.new("RGB", (art.side, art.side), (240, 230, 208))
    pencil, colours = ImageDraw.Draw(canvas), art.paint(34)
    for pitch, radius in ((7.5, 4.6), (4.4, 2.5)):
        places = art.scatter(pitch)
        hues = art.at(colours, places) + art.rng.uniform(-30, 30, (len(places), 3))
        odd = art.rng.random_sample(len(places)) < 0.06
        hues[odd] = hues[odd][:, [2, 0, 1]]
        reach = radius * art.unit * art.rng.uniform(0.75, 1.15, (len(places), 1))
        boxes = np.hstack([places - reach, places + reach]).tolist()
        for box, fill in zip(boxes, _fills(hues), strict=True):
            pencil.ellipse(box, fill=fill)
    return np.asarray(canvas).astype(np.float32)


def _pixel(art: Art) -> Array:
    small = type(art)(art.scene, art.palette, art.rng, 64)
    checker = np.mod(small.x + small.y, 2) * 0.5 - 0.25
    dim = (small.light + checker < -0.4) & (small.roles != _SKY)
    flat = small.paint() * np.where(dim, 0.76, 1)[..., None]
    at = np.arange(art.side) * 64 // art.side
    return flat[np.ix_(at, at)]


def _neon(art: Art) -> Array:
    upper = np.maximum(art.ids, np.maximum(np.roll(art.ids, 1, axis=0), np.roll(art.ids, 1, axis=1)))
    colours = art.palette[art.role_of[upper]]
    tube = art.edges(1.4)[..., None]
    row, column = art.y / (13 * art.unit), art.x / (26 * art.unit)
    joint = (np.mod(row, 1) < 0.1) | (np.mod(column + 0.5 * np.mod(np.floor(row), 2), 1) < 0.05)
    wall = (1 - 0.5 * joint) * (1 + 0.12 * art.noise(50))
    lit = np.array([24, 15, 40]) + art.blur(colours * tube, 12) * 1.2 + art.blur(colours * tube, 26)
    fill = art.paint() * 0.1 * (art.roles != _SKY)[..., None]
    lit = lit * wall[..., None] + art.blur(colours * tube, 2.5) * 1.5
    return np.asarray(lit + fill + tube * (0.6 * colours + 80))


def _blueprint(art: Art) -> Array:
    unit, side = art.unit, art.side
    white = np.maximum(art.edges(1.8), _ramp(art.screen(-0.8, 3.2), 0.5, 0.7) * (art.roles == _DARK) * 0.7)
    white = np.maximum(white, _ramp(art.screen(0.8, 5), 0.72, 0.85) * np.isin(art.roles, (_SHADE, _LEAF)) * 0.6)
    for pitch, weight in ((10, 0.1), (50, 0.16)):
        white += weight * (np.minimum(np.mod(art.x, pitch * unit), np.mod(art.y, pitch * unit)) < unit)
    parts = np.vstack([points for role, points in art.scene if role in (_MAIN, _ACCENT)])
    (left, top), (right, low) = np.clip([parts.min(axis=0), parts.max(axis=0)], 0.09, 0.91) * side
    sheet = Image.new("L", (side, side))
    pencil, rule = ImageDraw.Draw(sheet), 0.955 * side
    for line in ((left, rule, right, rule), (side - rule, top, side - rule, low)):
        pencil.line(line, fill=255, width=round(1.2 * unit))
        for x, y in (line[:2], line[2:]):
            pencil.line((x - 4 * unit, y + 4 * unit, x + 4 * unit, y - 4 * unit), fill=255, width=round(1.6 * unit))
    for start in np.arange(0, side, 16 * unit):
        for a, b in ((start, start + 10 * unit), (start + 12.5 * unit, start + 13.5 * unit)):
            pencil.line(((left + right) / 2, a, (left + right) / 2, b), fill=150, width=round(unit))
            pencil.line((a, (top + low) / 2, b, (top + low) / 2), fill=150, width=round(unit))
    blue = art.palette[0] + (7 * art.noise(5) + 3 * art.noise(90))[..., None]
    return _mix(blue, art.palette[1], np.clip(np.maximum(white, np.asarray(sheet) / np.float32(255)), 0, 0.95))


def _woodcut(art: Art) -> Array:
    x, y = art.sun()
    angle = np.array([0.5, -0.5, 1.2, -1.1, 0.9], np.float32)[art.ids % 5]
    u = (art.x * np.cos(angle) + art.y * np.sin(angle)) / (5.2 * art.unit)
    u = np.where(art.roles == _SKY, np.arctan2(art.y - y, art.x - x) * 18, u)
    level = art.y / (6 * art.unit) + 0.6 * np.sin(art.x / (14 * art.unit))
    u = np.where(np.isin(art.roles, (_WATER, _GROUND)), level, u) + 0.3 * art.noise(12)
    ridge = np.abs(2 * (u - np.floor(u)) - 1) + 0.2 * art.noise(80)
    tone = _TONE[art.roles]
    tone = np.where(tone > 0.9, 1.3, np.clip(tone - 0.28 * art.light, 0.04, 1)) * (art.roles != _PALE)
    carved = 1 - art.edges(5.5)
    black = np.maximum(_ramp(ridge, 1.03 - tone, 1.12 - tone) * carved, art.edges(1.8))
    black = art.warp(black, 1.2, 80) * (1 - 0.25 * _ramp(art.noise(110), 0.35, 0.8))
    red = np.isin(art.roles, (_ACCENT, _GLOW)).astype(np.float32)
    return _mix(_mix(art.palette[0], art.palette[2], red), art.palette[1], black)


def _lowpoly(art: Art) -> Array:
    count = int(np.ceil(art.side / (13 * art.unit)))
    grid = np.stack(np.meshgrid(np.arange(count + 1), np.arange(count + 1)), axis=2) * (art.side / count)
    # Each corner moves to the strongest edge among many points nearby.
    tries = grid[1:-1, 1:-1, None] + art.rng.uniform(-0.42, 0.42, (count - 1, count - 1, 40, 2)) * art.side / count
    best = art.at(art.blur(art.edges(1) * 255, 1), tries).argmax(axis=2)[..., None, None]
    grid[1:-1, 1:-1] = np.take_along_axis(tries, best, axis=2)[:, :, 0]
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    odd = (np.indices((count, count)).sum(axis=0) % 2 == 1)[..., None, None]
    first = np.where(odd, np.stack([a, b, c], axis=2), np.stack([a, b, d], axis=2))
    second = np.where(odd, np.stack([a, c, d], axis=2), np.stack([b, c, d], axis=2))
    corners = np.concatenate([first, second]).reshape(-1, 3, 2)
    mixes = np.array([[2, 2, 2], [4, 1, 1], [1, 4, 1], [1, 1, 4]]) / 6
    hues = np.median(art.at(art.paint(30), mixes @ corners), axis=1)
    edge = corners[:, 1] - corners[:, 0]
    facing = np.sin(2 * np.arctan2(edge[:, 1], edge[:, 0]))[:, None]
    hues = hues * art.rng.uniform(0.9, 1.08, (len(hues), 1)) + 10 * facing
    picture = Image.new("RGB", (art.side, art.side))
    for triangle, fill in zip(corners.reshape(-1, 6).tolist(), _fills(hues), strict=True):
        ImageDraw.Draw(picture).polygon(triangle, fill=fill, outline=fill)
    return np.asarray(picture).astype(np.float32)


def _chalk(art: Art) -> Array:
    strokes = Image.fromarray(art.noise(24, 170) + 0.5 * art.noise(12, 80)).rotate(38, Image.Resampling.BILINEAR)
    streak, tooth = np.asarray(strokes), art.rng.random_sample(art.ids.shape).astype(np.float32) - 0.5
    tooth = tooth + 0.5 * art.noise(140)
    ids = art.warp(art.ids, 2, 45)
    roles = art.role_of[ids]
    weight = np.array([0.35, 0.95, 0.6, 0.8, 0.75, 0.85, 0.95, 0.9, 0.95, 0.95, 0.2], np.float32)[roles]
    body = _ramp(0.42 * streak + 0.5 * tooth + 0.3 * art.light, 0.0 - weight, 0.9 - weight) * weight
    board = np.array([44, 50, 54]) + (6 * art.noise(6) + 4 * tooth)[..., None]
    drawn = _mix(board, art.palette[roles] + 18 * streak[..., None], body)
    return _mix(drawn, art.palette[_PALE], 0.9 * art.edges(2.2, ids) * _ramp(tooth + 0.4 * art.noise(30), -0.6, 0.2))


def _oil(art: Art) -> Array:
    colours, flow, unit = art.paint(26), art.flow(), art.unit
    picture = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
    pencil, busy = ImageDraw.Draw(picture), art.blur(art.edges(2) * 255, 3) > 26
    for pitch, long, wide, fine in ((9.0, 15.0, 10.0, False), (6.5, 9.0, 5.5, False), (3.6, 4.0, 2.4, True)):
        places = art.scatter(pitch)
        places = places[art.at(busy, places)] if fine else places
        angle = art.at(flow, places) + art.rng.uniform(-0.25, 0.25, len(places))
        along = np.stack([np.cos(angle), np.sin(angle)], axis=1) * long * unit
        aside = np.stack([-along[:, 1], along[:, 0]], axis=1) * wide / long
        hues = art.at(colours, places) + art.rng.uniform(-20, 20, (len(places), 1))
        layers = []
        for off, gain in ((0.0, 0), (-0.3, 20), (0.3, -20)):
            middle, bow = places + aside * off, aside * 0.12
            paths = np.hstack([middle - along - bow, middle + bow, middle + along - bow]).tolist()
            layers.append([*zip(paths, _fills(hues + gain), strict=True)])
        for bristles in zip(*layers, strict=True):
            for (path, fill), share in zip(bristles, (1.0, 0.22, 0.22), strict=True):
                pencil.line(path, fill=fill, width=max(1, round(wide * unit * share)))
    rgb = np.asarray(picture).astype(np.float32)
    grey = rgb.mean(axis=2)
    return np.asarray(rgb + 0.28 * (grey - np.roll(grey, (2, 2), axis=(0, 1)))[..., None])


def _risograph(art: Art) -> Array:
    paper: Array = art.palette[0] + 3 * art.noise(140)[..., None]
    half, frame = (art.side + 1) // 2, art.inside(0.035)
    for k, shift in enumerate(((0, 0), (-2, 3))):
        share = (_TWO_INKS[k] / 100)[art.roles]
        coarse = np.kron(art.rng.random_sample((half, half)), np.ones((2, 2)))[: art.side, : art.side]
        press = 0.94 + 0.1 * art.noise(5) - 0.2 * _ramp(art.noise(100), 0.5, 0.9)
        inked = ((share - 0.13 * art.light) * press - 0.12 > 0.76 * coarse) * (share > 0) * frame
        inked = np.roll(inked, [round(step * art.unit) for step in shift], axis=(0, 1))
        paper = _mix(paper, paper * art.palette[k + 1] / 255, 0.93 * inked)
    return paper


def _mosaic(art: Art) -> Array:
    grout, unit = (176, 166, 150), art.unit
    picture = Image.new("RGB", (art.side, art.side), grout)
    pencil, places = ImageDraw.Draw(picture), art.scatter(6.0, 0.6)
    angle = art.at(art.flow(), places) + art.rng.uniform(-0.1, 0.1, len(places))
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 3.5 * unit * art.rng.uniform(0.85, 1.1, (len(places), 1))
    aside = np.stack([-along[:, 1], along[:, 0]], axis=1)
    hues = art.at(art.paint(16), places) * art.rng.uniform(0.78, 1.12, (len(places), 1))
    tiles = np.hstack([places + along + aside, places - along + aside, places - along - aside, places + along - aside])
    shines = np.hstack([places - 0.5 * along - 0.5 * aside, places + 0.4 * along - 0.5 * aside])
    for tile, shine, fill, gleam in zip(tiles.tolist(), shines.tolist(), _fills(hues), _fills(hues + 40), strict=True):
        pencil.polygon(tile, fill=fill)
        pencil.line([*tile, *tile[:2]], fill=grout, width=max(1, round(0.6 * unit)))
        pencil.line(shine, fill=gleam, width=max(1, round(unit)))
    return np.asarray(picture).astype(np.float32)


RENDERERS: dict[str, tuple[Callable[[Art], Array], float]] = {
    "poster": (_poster, 2),
    "watercolour": (_watercolour, 1.5),
    "stained-glass": (_stained, 1.5),
    "ink": (_ink, 2),
    "oil": (_oil, 1.5),
    "papercut": (_papercut, 2),
    "neon": (_neon, 1.5),
    "halftone": (_halftone, 2),
    "mosaic": (_mosaic, 2),
    "risograph": (_risograph, 2),
    "chalk": (_chalk, 1.5),
    "pointillism": (_pointillism, 2),
    "blueprint": (_blueprint, 2),
    "lowpoly": (_lowpoly, 2),
    "woodcut": (_woodcut, 2),
    "pixel": (_pixel, 1),
}
"""The renderer of every style, and its working size as a multiple of the result's."""
