"""The motifs of the sample images: each is a short list of polygons with roles, in painting order.

Colour and texture come from :mod:`retrieval.sample_images.styles`. x points to the right and y downwards. Scenery is
measured in hundredths of the frame's side, a subject in hundredths of half its own size, from its centre.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Random: TypeAlias = np.random.RandomState
"""NumPy's legacy generator: its streams never change, so a seed gives the same pictures with any version."""

ROLES = ("sky", "glow", "far", "ground", "water", "leaf", "main", "shade", "accent", "pale", "dark")
"""The roles of shapes; palettes hold one colour per role, in this order."""


Scene: TypeAlias = list[tuple[int, Array]]
"""Polygons from back to front: an index into ROLES, and corners as float64 ``[N, 2]``, 0 to 1 across the frame."""


def _poly(*corners: float) -> Array:
    return np.array(corners, dtype=np.float64).reshape(-1, 2)


def _curve(*corners: float, closed: bool = True) -> Array:
    # Three rounds of Chaikin's corner cutting look round at every size that we draw.
    points = _poly(*corners)
    for _ in range(3):
        after = np.roll(points, -1, axis=0)
        cut = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=1)
        points = cut.reshape(-1, 2) if closed else np.vstack([points[:1], *cut[:-1], points[-1:]])
    return points


def _turned(points: Array, angle: float, x: float = 0, y: float = 0) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([x + c * points[:, 0] - s * points[:, 1], y + s * points[:, 0] + c * points[:, 1]], axis=1)


def _disc(x: float, y: float, radius: float, height: float = 0, turn: float = 0) -> Array:
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    flat = np.stack([radius * np.cos(angles), (height or radius) * np.sin(angles)], axis=1)
    return _turned(flat, turn, x, y)


def _pen(width: float, *corners: float, end: float = 0) -> Array:
    # The outline of a brush stroke through the corners that tapers from ``width`` to ``end``.
    points = _curve(*corners, closed=False) if len(corners) > 4 else _poly(*corners)
    along = np.gradient(points, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    half = normal * np.linspace(width, end or width, len(points))[:, None] / 2
    return np.vstack([points + half, (points - half)[::-1]])


class _Canvas:
    """Collects the shapes of one composition, and varies the place and bend of its subject."""

    def __init__(self, rng: Random, scale: float, y: float) -> None:
        self.rng, self.scene = rng, Scene()
        self.flip = -1.0 if rng.random_sample() < 0.5 else 1.0
        self.scale = scale * self.vary(0.9, 1.1)
        self.centre = np.array([self.vary(44, 56), y + self.vary(-3, 3)])
        self.stretch = np.array([self.vary(0.93, 1.07), self.vary(0.93, 1.07)])
        self.turn, self.phase = self.vary(-0.06, 0.06), rng.random_sample(2) * 2 * np.pi
        self.back(sky=_poly(0, 0, 100, 0, 100, 100, 0, 100))

    def vary(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rng.random_sample())

    def back(self, **parts: Array | list[Array]) -> None:
        # Add scenery by role, in frame coordinates; it is mirrored together with the subject.
        for role, outlines in parts.items():
            for points in outlines if isinstance(outlines, list) else [outlines]:
                placed = np.array([100, 0]) + points * (-1, 1) if self.flip < 0 else points
                self.scene.append((ROLES.index(role), placed / 100))

    def put(self, **parts: Array | list[Array]) -> None:
        # Add parts of the subject by role, gently bent, so that no two compositions share an outline.
        for role, outlines in parts.items():
            for points in outlines if isinstance(outlines, list) else [outlines]:
                x, y = points.T / 100
                bend = np.sin([2.3 * y + x + self.phase[0], 2.1 * x + y + self.phase[1]]).T
                bent = _turned((points / 100 + 0.03 * bend) * self.stretch, self.turn) * (self.flip, 1)
                self.scene.append((ROLES.index(role), (self.centre + self.scale * bent) / 100))

    def framed(self, x: float, y: float) -> tuple[float, float]:
        # Return the frame coordinates of a point of the subject, without its bend.
        at = self.centre + self.scale * np.array([x * self.flip, y]) / 100
        return float(at[0] if self.flip > 0 else 100 - at[0]), float(at[1])

    def hills(self, *bands: tuple[str, float, float]) -> None:
        # Add rolling bands, each a role, a height and a swing, from there down to the bottom edge.
        x = np.linspace(-5, 105, 60)
        for role, height, swing in bands:
            phase = self.vary(0, 6.28)
            wave = 0.7 * np.sin(0.0942 * x + phase) + 0.3 * np.sin(0.2265 * x + 2 * phase)
            self.back(**{role: np.vstack([np.stack([x, height + swing * wave], axis=1), _poly(105, 110, -5, 110)])})

    def fir(self, x: float, foot: float, tall: float, role: str = "leaf", side: str = "shade") -> None:
        self.back(dark=_pen(0.07 * tall, x, foot - 0.2 * tall, x, foot))
        for k in range(4):
            top, low = foot - tall * (1 - 0.2 * k), foot - tall * (0.62 - 0.165 * k)
            right = (x, top, x + tall * (0.12 + 0.055 * k), low, x, low - 0.02 * tall)
            self.back(**{role: _poly(*right, x - tall * (0.12 + 0.055 * k), low), side: _poly(*right)})

    def birds(self, x: float, y: float) -> None:
        for _ in range(3):
            bx, by, w = x + self.vary(-12, 12), y + self.vary(-6, 6), self.vary(3, 4.5)
            self.back(dark=[_pen(1, bx + s, by - w / 2, bx + s / 3, by - w * 0.7, bx, by) for s in (-w, w)])


def _sailboat(c: _Canvas) -> None:
    horizon = c.vary(58, 66)
    c.back(glow=_disc(c.vary(12, 28), c.vary(16, 36), c.vary(9, 12)))
    c.hills(("far", horizon - 6, 3.5), ("water", horizon, 0))
    c.birds(25, 16)
    c.put(dark=_pen(6, 2, 50, 2, -108), accent=_poly(2, -108, 34, -99, 2, -90))
    c.put(
        pale=_curve(8, -92, 10, -90, 62, -25, 86, 30, 84, 33, 10, 33, 8, 30), glow=_poly(8, -12, 66, -12, 76, 10, 8, 10)
    )
    c.put(accent=_curve(-5, -80, -7, -78, -50, -10, -72, 28, -68, 30, -6, 30))
    c.put(main=_poly(-92, 42, 98, 36, 70, 86, -66, 86), pale=_poly(-92, 42, 98, 36, 93, 47, -87, 53))
    c.put(shade=_poly(-74, 74, 77, 74, 70, 86, -66, 86))
    surface = c.framed(0, 80)[1]
    c.hills(("water", surface, 1))
    for k in range(9):
        x, y, w = c.vary(0, 90), c.vary(surface + 1, 97), c.vary(6, 14)
        wave = _pen(1.4, x, y, x + w / 3, y - 1.8, x + w / 1.5, y + 1.2, x + w, y)
        c.back(**{"far" if k % 2 else "pale": wave})


def _house(c: _Canvas) -> None:
    c.back(glow=_disc(c.vary(9, 17), c.vary(14, 24), c.vary(8, 10)))
    x, y = c.vary(36, 44), c.vary(12, 18)
    c.back(pale=[_disc(x + dx, y, r * 1.3, r * 0.7) for dx, r in ((-9, 4.5), (0, 6.5), (9, 4))])
    c.hills(("far", 52, 5), ("leaf", 64, 3), ("ground", 72, 2))
    x, y = c.framed(-22, 75)
    c.back(pale=_poly(x - 4, y - 2, x + 4, y - 2, x + 10, y + 14, x + 30, 105, x, 105))
    x, tall = c.vary(88, 94), c.vary(20, 26)
    c.back(dark=_pen(3, x, 80, x + 1, 55), leaf=_disc(x, 80 - 1.25 * tall, 0.42 * tall, 0.62 * tall))
    c.put(main=[_poly(28, -95, 50, -95, 50, -40, 28, -40), _poly(0, 0, 86, 0, 86, 75, 0, 75)])
    c.put(dark=_poly(24, -102, 54, -102, 54, -92, 24, -92))
    c.put(pale=[_disc(42 + 13 * k, -117 - 17 * k, 10 + 4 * k, 8 + 3 * k) for k in range(3)])
    c.put(pale=_poly(-80, 75, -80, 0, -40, -62, 0, 0, 0, 75), accent=_poly(-40, -72, 66, -68, 100, 4, 4, 6))
    c.put(shade=[_pen(11, -92, 12, -40, -70), _pen(11, -40, -70, 9, 10)])
    c.put(dark=_poly(-36, 28, -10, 28, -10, 75, -36, 75), glow=[_disc(-16, 53, 3), _disc(-40, -20, 12)])
    for x in (-68, 16, 52):
        bars = [_pen(3.5, x + 11, 24, x + 11, 52), _pen(3.5, x, 38, x + 22, 38)]
        c.put(glow=_poly(x, 24, x + 22, 24, x + 22, 52, x, 52), dark=bars)


def _cat(c: _Canvas) -> None:
    c.back(glow=_disc(c.vary(50, 66), c.vary(36, 42), c.vary(27, 32)))
    c.hills(("ground", c.vary(74, 80), 0))
    c.back(shade=_disc(*c.framed(0, 90), 36, 4.5))
    c.put(shade=_pen(20, 30, 75, 80, 82, 106, 50, 92, 10, 108, -16, end=10))
    c.put(main=_curve(-26, -30, -44, 30, -66, 90, 0, 98, 68, 90, 50, 25, 26, -30))
    c.put(pale=_curve(-18, -10, -26, 28, 0, 56, 26, 28, 18, -10))
    for s in (-1, 1):
        c.put(shade=_pen(3.5, 27 * s, 45, 24 * s, 88), pale=_disc(17 * s, 88, 15, 8))
        c.put(shade=[_pen(7, 52 * s, y, 44 * s, y + 5, 34 * s, y + 4, end=2) for y in (36, 56)])
        c.put(main=_poly(45 * s, -42, 43 * s, -100, 6 * s, -70), accent=_poly(37 * s, -60, 37 * s, -86, 18 * s, -70))
    c.put(main=_curve(-50, -30, -44, -66, 0, -82, 44, -66, 50, -30, 26, -4, -26, -4))
    c.put(shade=[_pen(6, x, -74, x, y, end=2) for x, y in ((-9, -58), (0, -54), (9, -58))], pale=_disc(0, -19, 20, 12))
    for s in (-1, 1):
        c.put(glow=_disc(21 * s, -40, 11.5, 10), dark=_disc(20 * s, -40, 4, 9.5))
        c.put(dark=[_pen(2.2, 16 * s, -19, 66 * s, -26), _pen(2.2, 16 * s, -14, 64 * s, -12)])
    c.put(dark=_pen(2.5, -10, -13, -5, -11, 0, -18, 5, -11, 10, -13))
    c.put(accent=[_poly(-7, -28, 7, -28, 0, -20), _pen(9, -26, -3, 0, 7, 26, -3)], glow=_disc(0, 8, 6))
    x, y, r = c.vary(10, 18), c.vary(84, 89), c.vary(6.5, 8)
    wool = [_pen(0.9, x - r * 0.8, y + r * k, x + r * 0.7, y + r * k - 1) for k in (-0.5, 0, 0.5)]
    c.back(accent=_disc(x, y, r), pale=wool)


def _fish(c: _Canvas) -> None:
    c.hills(("water", -10, 0))
    for x in (c.vary(-10, 10), c.vary(30, 50), c.vary(70, 90)):
        c.back(sky=_poly(x, -5, x + 10, -5, x + 3, 90, x - 25, 90))
    c.hills(("far", 80, 4), ("ground", 88, 2))
    for x in (7, 15, 24, 82, 93):
        h, s = c.vary(18, 42), c.vary(-4, 4)
        c.back(leaf=_pen(5, x, 102, x + 4, 100 - h / 3, x - 4 + s, 100 - h / 1.5, x + s, 100 - h, end=1))
    for x in (c.vary(45, 50), 58, c.vary(64, 70)):
        c.back(accent=_pen(3, 58, 98, 58, 92, x, 88, x + 1, c.vary(76, 84)))
    c.put(accent=[_curve(-30, -35, -20, -80, 30, -62, 50, -30), _curve(-20, 35, -30, 70, 2, 62, 15, 38)])
    c.put(accent=_curve(-60, 0, -115, -60, -100, -5, -100, 5, -115, 60))
    c.put(shade=[_pen(3, -75, y * 0.4, -100, y * 1.6) for y in (-22, 0, 22)])
    body = ((-80, 95, -1.0, "main"), (-80, 95, 0.4, "glow"), (-56, -42, -1.0, "pale"))
    for left, right, top, role in (*body, (-24, -10, -1.0, "shade"), (6, 20, -1.0, "pale")):
        at = np.linspace(left, right, 40)
        half = 47 * np.sin(np.pi * (at + 95) / 192) ** 0.8
        c.put(**{role: np.vstack([np.stack([at, top * half], axis=1), np.stack([at, half], axis=1)[::-1]])})
    c.put(shade=_pen(4.5, 42, -34, 32, 0, 42, 34), accent=_curve(20, 8, -14, 0, -22, 30, 10, 22))
    c.put(pale=_disc(64, -10, 11.5), dark=[_disc(66, -10, 6), _pen(3, 93, 10, 82, 15, 74, 13)])
    for y in (42, 32, 22, 12):
        x, r = c.framed(100, 0)[0] + c.vary(-3, 3), c.vary(1.6, 3.4)
        c.back(pale=_disc(x, y, r), water=_disc(x, y, r * 0.65))


def _forest(c: _Canvas) -> None:
    c.back(glow=_disc(c.vary(55, 72), c.vary(20, 28), c.vary(10, 13)))
    c.hills(("far", 50, 6))
    for k in range(8):
        c.fir(14 * k + c.vary(-4, 4), c.vary(68, 72), c.vary(24, 36), "water", "far")
    c.hills(("leaf", 70, 1.5), ("ground", 78, 2))
    for place in (0, 16, 86, 100, 74):
        c.fir(place + c.vary(-3, 3), c.vary(82, 88), c.vary(50, 72))
    x, y, w = c.vary(46, 52), c.vary(86, 90), c.vary(12, 15)
    c.back(shade=_poly(x - w, y, x + w * 1.25, y, x + w * 1.1, y + 3, x - w * 0.9, y + 3))
    c.back(main=_poly(x, y - 1.3 * w, x + 0.5 * w, y - 1.3 * w, x + w * 1.25, y, x + w * 0.6, y))
    c.back(accent=_poly(x, y - 1.3 * w, x + w * 0.8, y, x - w, y), glow=_poly(x, y - w, x + w * 0.3, y, x - w * 0.4, y))
    c.fir(c.vary(22, 28), c.vary(96, 100), c.vary(55, 66))
    c.birds(30, 16)


def _mountain(c: _Canvas) -> None:
    c.back(glow=_disc(c.vary(70, 80), c.vary(20, 30), c.vary(13, 17)))
    for x, y, w in ((12, c.vary(36, 44), 30), (90, c.vary(36, 44), 34), (62, c.vary(36, 44), 30)):
        c.back(far=_poly(x - w, 80, x - 0.4 * w, y + 13, x - 0.1 * w, y, x + 0.5 * w, y + 18, x + w, 80))
    a, b, d = c.vary(-5, 5), c.vary(-47, -37), c.vary(-25, -15)
    c.put(main=_poly(-120, 75, -66, 2, -50 + a, -6, 0, -90, 30, b, 42, -40, 125, 75))
    c.put(shade=_poly(0, -90, 30, b, 42, -40, 125, 75, 20, 75, 30, 40, 6, 20, 16 + a, -20, -4, -45))
    c.put(pale=_poly(0, -90, 25, b - 8, 16, -30, 6, -44, -6, d, -15, -42, -30, d, -32, -36))
    c.put(far=_poly(0, -90, 25, b - 8, 16, -30, 6, -44, -2, -60))
    lake = c.vary(76, 80)
    c.hills(("leaf", lake - 6, 2), ("water", lake, 0))
    for k in range(7):
        left, right, y = c.vary(20, 60), c.vary(40, 80), lake + 3 + 2.8 * k
        c.back(**{"pale" if k % 3 else "glow": _pen(1.2, left, y, right, y)})
    c.hills(("ground", 97, 2))
    for place in (4, 13, 22, 88, 96):
        c.fir(place + c.vary(-2, 2), c.vary(93, 100), c.vary(16, 30))
    c.birds(24, 20)


def _teapot(c: _Canvas) -> None:
    c.back(far=[_poly(x, 0, x + 6, 0, x + 6, 100, x, 100) for x in np.arange(c.vary(-10, 0), 100, 14)])
    c.back(glow=_disc(c.vary(40, 60), 40, 30))
    table = c.vary(70, 75)
    c.hills(("ground", table, 0), ("shade", table + 20, 0))
    c.back(leaf=_disc(50, table + 8, 44, 7))
    c.put(shade=_pen(13, -60, -10, -115, -40, -120, 35, -50, 35))
    c.put(main=_poly(50, 30, 72, -2, 80, -45, 108, -55, 98, -30, 90, 15, 55, 58))
    c.put(dark=_poly(-42, 66, 42, 66, 46, 76, -46, 76))
    c.put(main=_curve(-40, -52, -86, -20, -80, 55, -30, 74, 30, 74, 80, 55, 86, -20, 40, -52))
    c.put(pale=[_poly(-76, 2, 76, 2, 77, 32, -77, 32), _pen(7, -56, -6, -50, -24, -36, -34, end=3)])
    for k in range(6):
        c.put(**{"accent" if k % 2 else "water": _disc(-60 + 24 * k, 17, 8.5, 10)})
    c.put(shade=_curve(-42, -44, -40, -70, 40, -70, 42, -44), accent=_disc(0, -76, 13, 12))
    x, y = c.framed(100, 86)
    c.back(pale=_disc(x, y + 1, 14, 2.8), accent=_curve(x - 10, y - 13, x - 9, y + 2, x + 9, y + 2, x + 10, y - 13))
    c.back(dark=_disc(x, y - 10.5, 7.5, 1.8))
    for s in (x - 3, x + 3):
        c.back(pale=_pen(1.2, s, y - 14, s + 2, y - 20, s - 2, y - 25, s + c.vary(-2, 2), y - 32))


def _flower(c: _Canvas) -> None:
    c.hills(("far", c.vary(62, 70), 4), ("ground", c.vary(80, 86), 3))
    for x, y, r in ((13, c.vary(50, 62), 7), (87, c.vary(42, 56), 8)):
        petals = [_disc(x + r * np.cos(a), y + r * np.sin(a), r * 0.62) for a in np.arange(5) * 1.257]
        c.back(leaf=_pen(2.2, x, y, x + 3, 80, x - 1, 105), main=petals, pale=_disc(x, y, r * 0.5))
    c.put(leaf=[_pen(10, 0, 0, 8, 60, 0, 100, 5, 160), _curve(4, 110, 30, 62, 95, 50, 75, 85, 30, 112)])
    c.put(shade=_curve(2, 120, -30, 82, -90, 72, -75, 102, -30, 124))
    count, start = int(c.rng.randint(7, 10)), c.vary(0, 1)
    for ring, (role, far, long, wide) in enumerate((("shade", 50, 42, 20), ("accent", 44, 36, 17))):
        for a in start + (np.arange(count) + ring / 2) * 2 * np.pi / count:
            x, y = np.cos(a), np.sin(a)
            c.put(**{role: _disc(far * x, far * y - 20, long, wide, a)})
            c.put(**{"main" if ring else "accent": _disc(50 * x, 50 * y - 20, 22, 5, a)})
    seeds = [_disc(6 * k**0.5 * np.cos(2.4 * k), 6 * k**0.5 * np.sin(2.4 * k) - 20, 2.4) for k in range(14)]
    c.put(glow=_disc(0, -20, 27), dark=seeds)


_PAINTERS: dict[str, tuple[Callable[[_Canvas], None], float, float]] = {
    "sailboat": (_sailboat, 39, 48),
    "house": (_house, 36, 57),
    "cat": (_cat, 40, 51),
    "fish": (_fish, 37, 48),
    "forest": (_forest, 40, 50),
    "mountain": (_mountain, 44, 50),
    "teapot": (_teapot, 33, 53),
    "flower": (_flower, 42, 46),
}
"""By motif: its painter, half the size of its subject, and the height of its centre in the frame, in hundredths."""

MOTIFS: tuple[str, ...] = tuple(_PAINTERS)


def compose(motif: str, rng: Random) -> Scene:
    """Return one composition of ``motif``, varied by draws from ``rng``."""
    painter, scale, y = _PAINTERS[motif]
    canvas = _Canvas(rng, scale, y)
    painter(canvas)
    return canvas.scene
