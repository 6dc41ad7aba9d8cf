"""The canvas of one sample image: the shapes of its motif, and tools that the styles share."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from retrieval.sample_images.motifs import ROLES, Array, Random, Scene


class Art:
    """One picture in the making: its scene as flat regions, and the tools that the styles share.

    Attributes:
        palette: the colour of every role, float32 ``[roles, 3]``, 0 to 255.
        ids: the topmost shape at every pixel, uint8 ``[side, side]``.
        roles: the role of that shape, uint8 ``[side, side]``.
        unit: pixels of this picture per pixel of one that is 320 wide.
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
        """Return how far each pixel lies towards the upper left of its shape: float32 ``[side, side]``, -1 to 1."""
        low = np.array([points.min(axis=0) for _, points in self.scene], np.float32) * self.side
        high = np.array([points.max(axis=0) for _, points in self.scene], np.float32) * self.side
        slope = np.array([0.6, 0.8], np.float32) / np.maximum(high - low, 1)
        start = ((low + high) * slope).sum(axis=1)
        (across, down), top = slope.T, self.ids
        facing = start[top] - 2 * (across[top] * self.x + down[top] * self.y)
        return np.asarray(np.clip(facing, -1, 1))

    def paint(self, relief: float = 0) -> Array:
        """Colour every pixel by its role, with ``relief`` levels of light: float32 ``[side, side, 3]``."""
        flat: Array = self.palette[self.roles]
        return np.asarray(flat + relief * self.light[..., None]) if relief else flat

    def noise(self, cells: int, tall: int = 0) -> Array:
        """Return smooth noise of ``cells`` by ``tall`` bumps: float32 ``[side, side]``, about -1 to 1."""
        seeds = self.rng.random_sample((tall or cells, cells)).astype(np.float32) * 2 - 1
        image = Image.fromarray(seeds).resize((self.side, self.side), Image.Resampling.BICUBIC)
        return np.asarray(image)

    def warp(self, field: Array, amount: float, cells: int) -> Array:
        """Move the values of ``field`` by up to ``amount`` units, so that its edges look drawn by hand."""
        reach, last = amount * self.unit, self.side - 1
        x = np.clip(self.x + reach * self.noise(cells), 0, last).astype(np.intp)
        y = np.clip(self.y + reach * self.noise(cells), 0, last).astype(np.intp)
        return np.asarray(field[y, x])

    def blur(self, field: Array, radius: float) -> Array:
        """Blur levels of 0 to 255, ``[side, side]`` or ``[side, side, 3]``, by ``radius`` units."""
        image = Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))
        return np.asarray(image.filter(ImageFilter.GaussianBlur(radius * self.unit))).astype(np.float32)

    def edges(self, width: float, ids: Array | None = None) -> Array:
        """Return soft lines of ``width`` units where shapes meet: float32 ``[side, side]``, 1 on a line, else 0."""
        field = self.ids if ids is None else ids
        found = np.zeros(field.shape, np.bool_)
        found[:, 1:] |= field[:, 1:] != field[:, :-1]
        found[1:] |= field[1:] != field[:-1]
        reach = max(1, round(width * self.unit))
        found = np.pad(found, reach)  # no line rolls over to the far side
        for axis in (0, 1):
            found = np.logical_or.reduce([np.roll(found, k - reach // 2, axis=axis) for k in range(reach)])
        return np.asarray(self.blur(found[reach:-reach, reach:-reach] * np.float32(255), 0.5) / 255)

    def screen(self, angle: float, pitch: float, wobble: float = 0) -> Array:
        """Return parallel lines ``pitch`` units apart: 1 in the middle of a line, 0 halfway to the next."""
        u = (self.x * np.cos(angle) + self.y * np.sin(angle)) / (pitch * self.unit)
        u = u + wobble * self.noise(9) if wobble else u
        return np.asarray(np.abs(2 * (u - np.floor(u)) - 1))

    def inside(self, margin: float) -> Array:
        """Return 0 on a border as wide as the share ``margin`` of the frame, and 1 inside: float32 ``[side, side]``."""
        off = np.maximum(np.abs(self.x / self.side - 0.5), np.abs(self.y / self.side - 0.5))
        return np.asarray(off < 0.5 - margin, np.float32)

    def cells(self, pitch: float) -> NDArray[np.intp]:
        """Return the number of the Voronoi cell of every pixel, ``[side, side]``; cells are ``pitch`` units across."""
        count = int(np.ceil(self.side / (pitch * self.unit))) + 2
        jitter = self.rng.random_sample((count, count, 2)).astype(np.float32)
        u, v = self.x / (pitch * self.unit) + 1, self.y / (pitch * self.unit) + 1
        column, row = u.astype(np.intp), v.astype(np.intp)
        best, owner = np.full(u.shape, np.inf, np.float32), np.zeros(u.shape, np.intp)
        for k in range(9):  # one seed per square of a grid: the nearest is in the same square or next to it
            i, j = np.clip(row + k // 3 - 1, 0, count - 1), np.clip(column + k % 3 - 1, 0, count - 1)
            far = (j + jitter[i, j, 0] - u) ** 2 + (i + jitter[i, j, 1] - v) ** 2
            owner, best = np.where(far < best, i * count + j, owner), np.minimum(best, far)
        return owner

    def scatter(self, pitch: float, loose: float = 1.0) -> NDArray[np.float64]:
        """Return jittered points about ``pitch`` units apart, shuffled: float64 ``[N, 2]``, in pixels."""
        count = int(np.ceil(self.side / (pitch * self.unit)))
        grid = np.stack(np.meshgrid(np.arange(count), np.arange(count)), axis=2).reshape(-1, 2)
        jitter = 0.5 + loose * (self.rng.random_sample(grid.shape) - 0.5)
        return np.asarray(self.rng.permutation((grid + jitter) * (self.side / count)))

    def at(self, field: Array, places: Array) -> Array:
        """Return ``field`` at the pixels nearest to ``places``, ``[..., 2]``."""
        x, y = np.clip(places, 0, self.side - 1).astype(np.intp).T
        return np.asarray(field[y.T, x.T])

    def flow(self) -> Array:
        """Return the direction of a brush, along the nearest edge: radians, float32 ``[side, side]``."""
        dy, dx = np.gradient(self.blur(self.paint(20).mean(axis=2), 5))
        swirl = self.noise(5)
        return np.asarray(np.arctan2(dx + 0.2 * swirl, -dy + 0.4 * np.cos(1.5 * swirl)))

    def sun(self) -> tuple[float, float]:
        """Return the position of the light, the middle of the first glowing shape, in pixels."""
        glowing = [points for role, points in self.scene if ROLES[role] == "glow"]
        x, y = (glowing[0].mean(axis=0) if glowing else np.array([0.5, -0.1])) * self.side
        return float(x), float(y)
