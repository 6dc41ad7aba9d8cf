"""The drawn picture that the odd files hold, a case, and colour mathematics apart from the code under test."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 48, 32
MEAN_TOLERANCE = 2.0  # grey levels of 255


@dataclass(frozen=True)
class Case:
    """An odd file: either the sRGB pixels that it shows, or words that the reason against it must contain."""

    name: str
    data: bytes
    shown: np.ndarray | None = None  # [H, W, 3], 0..255
    words: tuple[str, ...] = ()
    rows: float = 1.0  # the share of the rows that must be right, from the top


def picture(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return smooth colours, light and dark, as floats [height, width, 3] in 0..255."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height - 1, width - 1]).reshape(2, 1, 1)
    red = 0.5 + 0.45 * np.sin(5 * x + 1.0)
    green = 0.5 + 0.45 * np.cos(4 * y - 2 * x)
    blue = 0.1 + 0.85 * x * y
    return 255 * np.stack([red, green, blue], axis=2) * (0.35 + 0.65 * (1 - y[..., None] * 0.6))


def bytes_of(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(bytes_of(values))


def grey() -> np.ndarray:
    """Return the picture's grey as floats [H, W] in 0..255, with the whole range."""
    values = picture().mean(axis=2)
    return 255 * (values - values.min()) / (values.max() - values.min())


def as_rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def to_linear(values: np.ndarray) -> np.ndarray:
    """Return light, 0..1, of sRGB values 0..255."""
    v = values / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def from_linear(light: np.ndarray) -> np.ndarray:
    v = np.clip(light, 0, 1)
    return 255 * np.where(v <= 0.0031308, v * 12.92, 1.055 * v ** (1 / 2.4) - 0.055)


@dataclass(frozen=True)
class Space:
    """An RGB colour space: CIE x and y of white, red, green, blue, and the power of its curve."""

    name: str
    white: tuple[float, float]
    primaries: tuple[tuple[float, float], ...]
    gamma: float

    def to_xyz(self) -> np.ndarray:
        """Return the matrix [3, 3] from linear RGB to XYZ under D50."""
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in self.primaries]).T
        x, y = self.white
        white = np.array([x / y, 1, (1 - x - y) / y])
        matrix = columns * np.linalg.inv(columns).dot(white)
        cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
        scale = cone.dot([0.9642, 1.0, 0.8249]) / cone.dot(white)
        return np.linalg.inv(cone).dot(np.diag(scale)).dot(cone).dot(matrix)

    def holding(self, values: np.ndarray) -> np.ndarray:
        """Return the values 0..255 of this space that show the sRGB ``values``."""
        light = to_linear(values) @ (np.linalg.inv(self.to_xyz()) @ SRGB.to_xyz()).T
        return 255 * np.clip(light, 0, 1) ** (1 / self.gamma)


_D65 = (0.3127, 0.3290)
_SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
SRGB = Space("srgb", _D65, _SRGB, 2.2)
SPACES = (
    Space("p3", _D65, ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), 2.2),
    Space("adobe-rgb", _D65, ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), 563 / 256),
    Space("prophoto", (0.3457, 0.3585), ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), 1.8),
    Space("rec2020", _D65, ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), 2.4),
    Space("linear", _D65, _SRGB, 1.0),
    Space("gamma-1.8", _D65, _SRGB, 1.8),
    Space("swapped", _D65, (_SRGB[1], _SRGB[2], _SRGB[0]), 2.2),
)
