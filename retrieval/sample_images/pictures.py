"""Sample images drawn by code: every motif in every style, with the same pixels for the same seed.

Styles and motifs are crossed, so that a search by style and a search by subject have different right answers. Styles
that share their palettes (see :data:`PALETTES`) differ in texture only.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import UsageError
from retrieval.sample_images.canvas import Art
from retrieval.sample_images.motifs import MOTIFS, Array, compose
from retrieval.sample_images.styles import RENDERERS

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
"""The palettes of each style. Three pairs share theirs: poster and papercut, oil and pointillism, stained glass and
mosaic."""

_COLOURS = {  # one colour per role, in the order of ROLES; the last four list paper and inks instead
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


def palette_of(name: str) -> Array:
    """Return the colours of a palette by role, float32 ``[roles, 3]``, 0 to 255."""
    return np.array([tuple(bytes.fromhex(colour)) for colour in _COLOURS[name].split()], np.float32)


def _known(kind: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise UsageError(f"unknown {kind} '{name}'; known: {', '.join(names)}")


def draw(style: str, motif: str, size: int = 320, seed: int = 2334, variant: int = 0) -> NDArray[np.uint8]:
    """Draw ``motif`` in ``style``: uint8 ``[size, size, 3]``, RGB, with the same pixels for the same arguments.

    Args:
        style: one of :data:`STYLES`.
        motif: one of :data:`MOTIFS`.
        size: pixels a side, 16 or more.
        seed: the seed of every random choice.
        variant: the number of the composition; each number places and bends the motif differently.

    Raises:
        UsageError: an unknown name, or a smaller size.
    """
    _known("style", style, STYLES)
    _known("motif", motif, MOTIFS)
    if size < 16:
        raise UsageError(f"a sample image is at least 16 pixels wide, not {size}")
    rng = np.random.RandomState(zlib.crc32(f"{seed}/{style}/{motif}/{variant}".encode()))
    choices = PALETTES[style]
    palette = palette_of(choices[rng.randint(len(choices))])
    renderer, zoom = RENDERERS[style]
    art = Art(compose(motif, rng), palette, rng, round(size * zoom))
    image = Image.fromarray(np.clip(renderer(art), 0, 255).astype(np.uint8))
    return np.array(image.resize((size, size), Image.Resampling.LANCZOS))


def gallery(size: int = 320, seed: int = 2334) -> Iterator[GalleryImage]:
    """Draw every motif in every style, style by style."""
    for style in STYLES:
        for motif in MOTIFS:
            yield GalleryImage(style, motif, draw(style, motif, size, seed))


def draw_gallery(folder: Path, size: int = 320, seed: int = 2334) -> list[Path]:
    """Write ``FOLDER/STYLE/MOTIF.png`` for every style and motif, and return the paths in that order.

    A second run writes the same bytes. Other files in ``folder`` stay as they are.
    """
    paths = []
    for picture in gallery(size, seed):
        path = folder / picture.style / f"{picture.motif}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.pixels).save(path)
        paths.append(path)
    return paths
