"""A gallery drawn by code: every motif in every style, the same pixels for the same seed.

The design is crossed, so that a search by style and a search by what is shown have different right answers;
styles that share their palettes (see :data:`PALETTES`) can only be told apart by their texture.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from retrieval.errors import UsageError
from retrieval.gallery.motifs import MOTIFS, ROLES, Array, Random, Scene, compose
from retrieval.gallery.styles import RENDERERS

__all__ = ["MOTIFS", "PALETTES", "STYLES", "Art", "GalleryImage", "draw", "draw_gallery", "gallery"]

STYLES: tuple[str, ...] = tuple(RENDERERS)

PALETTES: dict[str, tuple[str, ...]] = {
    "poster": ("riviera", "dusk"),
    "papercut": ("riviera", "dusk"),
    "oil": ("meadow", "starry"),
    "pointillism": ("meadow", "starry"),
    "stained-glass": ("jewel",),
    "mosaic": ("jewel",),
    "watercolour": ("garden",),
    "chalk": ("pastel",),
    "lowpoly": ("dawn",),
    "halftone": ("comic",),
    "pixel": ("arcade",),
    "neon": ("tubes",),
    "risograph": ("inks",),
    "ink": ("sepia",),
    "woodcut": ("vermilion",),
    "blueprint": ("cyanotype",),
}
"""The palettes that each style may draw with. Poster and papercut, oil and pointillism, stained glass and
mosaic are pairs with the same palettes."""

_COLOURS = {  # One for every role, in the order of ROLES; the last four name their paper and inks first.
    "riviera": "f6d7b0 f4a340 e58e73 3f7d78 2f6f8f 2e6b5e c8452f 7e2f3a e9782f fff4df 1d2b44",
    "dusk": "5b4b8a ffd37a 7c5fa5 3a2e5e 2a3c74 274c5e e4607a 8f2f66 ff9a6b fce6d8 1b1533",
    "meadow": "8fb8de ffe27a 7fa4b8 a8b85a 3f7fb0 4e8b4a d9733a 8a4a3c d8405a fbf3dc 2b2f52",
    "starry": "23408e ffd447 35619f 4f7a3a 1c5c8c 2b5e46 e0912f 7a4a24 d9502e cfe3ea 10193a",
    "jewel": "4f9bd9 ffc93c 7b5ea7 3c8d5a 1f5fa8 1f7a4d c62b3a 7a1533 f07f1f f3e9c8 222238",
    "garden": "a9cfe0 f6c667 9db4c8 a9bc7b 6fa8b9 6b9a6a d27a5c 8c6478 c9566b fbf6ea 3f4763",
    "pastel": "8fb9d8 f7d774 a99bc9 8fbf8a 5f9fbf 6faf7f f08a6c b8728f f5a3b5 f7f3e8 30363c",
    "dawn": "c9b6e4 ffe3a3 9c8fd1 6fb3a0 4fa3c4 2f8a80 f26b6b 9a3f73 ffa85c fff6ea 2f2a55",
    "comic": "6fd0f2 ffe94a 9fb7e8 7cc95b 2e86d6 2fa24f f0432f b8252b ff9e1b ffffff 151515",
    "arcade": "29adff ffec27 83769c 00a847 065ab5 008751 ff004d 7e2553 ffa300 fff1e8 1d2b53",
    "tubes": "3a2a6a fff04a 6a4dff b026ff 00c8ff 2bff88 ff2e9a a03cff ff7a1a e9fbff 4a58c8",
    "inks": "f7f1e3 ff5a82 0b7fa3",
    "sepia": "f6ecd4 2a1e1a",
    "vermilion": "f3ead6 1a181a d63e2c",
    "cyanotype": "164a96 ecf4ff",
}


@dataclass(frozen=True)
class GalleryImage:
    """One drawing: ``pixels`` is uint8 [S, S, 3], RGB."""

    style: str
    motif: str
    pixels: NDArray[np.uint8]


class Art:
    """One picture in the making: the scene drawn flat, and the tools that the styles share.

    ``palette`` is float32 [roles, 3], 0 to 255; ``ids`` uint8 [side, side] says which shape is on top and
    ``roles`` uint8 [side, side] its role; ``unit`` is the pixel of a picture 320 wide.
    """

    def __init__(self, scene: Scene, palette: Array, rng: Random, side: int) -> None:
        self.scene, self.palette, self.rng, self.side, self.unit = scene, palette, rng, side, side / 320
        flat = Image.new("L", (side, side))
        for k, (_, points) in enumerate(scene):
            ImageDraw.Draw(flat).polygon((points * side).ravel().tolist(), fill=k)
        self.ids: NDArray[np.uint8] = np.asarray(flat)
        self.role_of = np.array([role for role, _ in scene], np.uint8)
        self.roles = self.role_of[self.ids]
        self.y, self.x = np.mgrid[0:side, 0:side].astype(np.float32)

    @cached_property
    def light(self) -> Array:
        """Tell how much each pixel of its shape faces the upper left: float32 [side, side], -1 to 1."""
        low = np.array([points.min(axis=0) for _, points in self.scene], np.float32) * self.side
        high = np.array([points.max(axis=0) for _, points in self.scene], np.float32) * self.side
        slope = np.array([0.6, 0.8], np.float32) / np.maximum(high - low, 1)
        start = ((low + high) * slope).sum(axis=1)
        (across, down), top = slope.T, self.ids
        facing = start[top] - 2 * (across[top] * self.x + down[top] * self.y)
        return np.asarray(np.clip(facing, -1, 1))

    def paint(self, relief: float = 0) -> Array:
        """Colour every pixel by its role, lit by ``relief`` levels: float32 [side, side, 3]."""
        flat: Array = self.palette[self.roles]
        return np.asarray(flat + relief * self.light[..., None]) if relief else flat

    def noise(self, cells: int, tall: int = 0) -> Array:
        """Smooth noise of ``cells`` by ``tall`` bumps: float32 [side, side] from about -1 to 1."""
        seeds = self.rng.random_sample((tall or cells, cells)).astype(np.float32) * 2 - 1
        image = Image.fromarray(seeds).resize((self.side, self.side), Image.Resampling.BICUBIC)
        return np.asarray(image)

    def warp(self, field: Array, amount: float, cells: int) -> Array:
        """Take ``field`` from up to ``amount`` units away: what a hand or wet paper does to an edge."""
        reach, last = amount * self.unit, self.side - 1
        x = np.clip(self.x + reach * self.noise(cells), 0, last).astype(np.intp)
        y = np.clip(self.y + reach * self.noise(cells), 0, last).astype(np.intp)
        return np.asarray(field[y, x])

    def blur(self, field: Array, radius: float) -> Array:
        """Blur levels of 0 to 255, [side, side] or [side, side, 3], by ``radius`` units."""
        image = Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))
        return np.asarray(image.filter(ImageFilter.GaussianBlur(radius * self.unit))).astype(np.float32)

    def edges(self, width: float, ids: Array | None = None) -> Array:
        """Where shapes meet: float32 [side, side], 1 on lines of ``width`` units, softened, else 0."""
        field = self.ids if ids is None else ids
        found = np.zeros(field.shape, np.bool_)
        found[:, 1:] |= field[:, 1:] != field[:, :-1]
        found[1:] |= field[1:] != field[:-1]
        reach = max(1, round(width * self.unit))
        found = np.pad(found, reach)  # so that nothing rolls over to the far side
        for axis in (0, 1):
            found = np.logical_or.reduce([np.roll(found, k - reach // 2, axis=axis) for k in range(reach)])
        return np.asarray(self.blur(found[reach:-reach, reach:-reach] * np.float32(255), 0.5) / 255)

    def screen(self, angle: float, pitch: float, wobble: float = 0) -> Array:
        """Parallel lines ``pitch`` units apart: 1 on the middle of each line, 0 halfway to the next."""
        u = (self.x * np.cos(angle) + self.y * np.sin(angle)) / (pitch * self.unit)
        u = u + wobble * self.noise(9) if wobble else u
        return np.asarray(np.abs(2 * (u - np.floor(u)) - 1))

    def inside(self, margin: float) -> Array:
        """Tell the picture (1) from a border as wide as ``margin`` of the frame (0): float32 [side, side]."""
        off = np.maximum(np.abs(self.x / self.side - 0.5), np.abs(self.y / self.side - 0.5))
        return np.asarray(off < 0.5 - margin, np.float32)

    def cells(self, pitch: float) -> NDArray[np.intp]:
        """Voronoi cells about ``pitch`` units across: the number of its cell for every pixel, [side, side]."""
        count = int(np.ceil(self.side / (pitch * self.unit))) + 2
        jitter = self.rng.random_sample((count, count, 2)).astype(np.float32)
        u, v = self.x / (pitch * self.unit) + 1, self.y / (pitch * self.unit) + 1
        column, row = u.astype(np.intp), v.astype(np.intp)
        best, owner = np.full(u.shape, np.inf, np.float32), np.zeros(u.shape, np.intp)
        for k in range(9):  # One seed in every square of a grid: the nearest is in this one or next to it.
            i, j = np.clip(row + k // 3 - 1, 0, count - 1), np.clip(column + k % 3 - 1, 0, count - 1)
            far = (j + jitter[i, j, 0] - u) ** 2 + (i + jitter[i, j, 1] - v) ** 2
            owner, best = np.where(far < best, i * count + j, owner), np.minimum(best, far)
        return owner

    def scatter(self, pitch: float, loose: float = 1.0) -> NDArray[np.float64]:
        """Jittered places about ``pitch`` units apart all over the frame, shuffled: pixels, [N, 2]."""
        count = int(np.ceil(self.side / (pitch * self.unit)))
        grid = np.stack(np.meshgrid(np.arange(count), np.arange(count)), axis=2).reshape(-1, 2)
        jitter = 0.5 + loose * (self.rng.random_sample(grid.shape) - 0.5)
        return np.asarray(self.rng.permutation((grid + jitter) * (self.side / count)))

    def at(self, field: Array, places: Array) -> Array:
        """``field`` at the pixels nearest to ``places`` [..., 2]."""
        x, y = np.clip(places, 0, self.side - 1).astype(np.intp).T
        return np.asarray(field[y.T, x.T])

    def flow(self) -> Array:
        """Which way a brush would go: radians along the nearest edge, float32 [side, side]."""
        dy, dx = np.gradient(self.blur(self.paint(20).mean(axis=2), 5))
        swirl = self.noise(5)
        return np.asarray(np.arctan2(dx + 0.2 * swirl, -dy + 0.4 * np.cos(1.5 * swirl)))

    def sun(self) -> tuple[float, float]:
        """Where the light hangs: the middle of the first glowing shape, in pixels."""
        glowing = [points for role, points in self.scene if ROLES[role] == "glow"]
        x, y = (glowing[0].mean(axis=0) if glowing else np.array([0.5, -0.1])) * self.side
        return float(x), float(y)


def _palette(name: str) -> Array:
    return np.array([tuple(bytes.fromhex(colour)) for colour in _COLOURS[name].split()], np.float32)


def _known(kind: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise UsageError(f"there is no gallery {kind} {name!r}; there are {', '.join(names)}")


def draw(style: str, motif: str, size: int = 320, seed: int = 2334, variant: int = 0) -> NDArray[np.uint8]:
    """Draw ``motif`` in ``style``: uint8 [size, size, 3], RGB, the same for the same arguments.

    Every ``variant`` is another composition of the same motif. Raises UsageError for an unknown name.
    """
    _known("style", style, STYLES)
    _known("motif", motif, MOTIFS)
    if size < 16:
        raise UsageError(f"a gallery picture is at least 16 pixels wide, not {size}")
    rng = np.random.RandomState(zlib.crc32(f"{seed}/{style}/{motif}/{variant}".encode()))
    choices = PALETTES[style]
    palette = _palette(choices[rng.randint(len(choices))])
    renderer, zoom = RENDERERS[style]
    art = Art(compose(motif, rng), palette, rng, round(size * zoom))
    image = Image.fromarray(np.clip(renderer(art), 0, 255).astype(np.uint8))
    return np.array(image.resize((size, size), Image.Resampling.LANCZOS))


def gallery(size: int = 320, seed: int = 2334) -> Iterator[GalleryImage]:
    """Draw every motif in every style, one after the other, style by style."""
    for style in STYLES:
        for motif in MOTIFS:
            yield GalleryImage(style, motif, draw(style, motif, size, seed))


def draw_gallery(folder: Path, size: int = 320, seed: int = 2334) -> list[Path]:
    """Write ``<folder>/<style>/<motif>.png`` for every style and motif and return the paths in that order.

    Running it again writes the same bytes again; nothing else in ``folder`` is touched.
    """
    paths = []
    for picture in gallery(size, seed):
        path = folder / picture.style / f"{picture.motif}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.pixels).save(path)
        paths.append(path)
    return paths
