"""Copies of a picture as they come about: ten kinds, each drawn with its own random numbers."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

Made = tuple[Image.Image, str, int]
"""A copy, the suffix of its file, and the JPEG quality."""
Copy = Callable[[Image.Image, np.random.Generator], Made]


def _jpeg(image: Image.Image, quality: int = 88) -> Made:
    return image, ".jpg", quality


def _third(image: Image.Image, random: np.random.Generator) -> Made:
    size = (max(1, image.width // 3), max(1, image.height // 3))
    return _jpeg(image.resize(size, Image.Resampling.LANCZOS))


def _crop(image: Image.Image, random: np.random.Generator) -> Made:
    """Keep 80 % of both sides, anywhere."""
    width, height = round(0.8 * image.width), round(0.8 * image.height)
    x, y = int(random.integers(0, image.width - width + 1)), int(random.integers(0, image.height - height + 1))
    return _jpeg(image.crop((x, y, x + width, y + height)))


def _border(image: Image.Image, random: np.random.Generator) -> Made:
    """Add 4 to 12 % of the shorter side on each side, in one of five colours."""
    wide = round(float(random.uniform(0.04, 0.12)) * min(image.size))
    colours = ("white", "black", (40, 70, 140), (200, 190, 170), (120, 120, 120))
    return _jpeg(ImageOps.expand(image, wide, colours[int(random.integers(len(colours)))]))


def _turned(image: Image.Image, random: np.random.Generator) -> Made:
    ways = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270)
    return _jpeg(image.transpose(ways[int(random.integers(2))]))


def _light(image: Image.Image, random: np.random.Generator) -> Made:
    """Change brightness and contrast by up to 35 % each, by at least 15 %."""
    factors = [float(1 + random.choice((-1, 1)) * random.uniform(0.15, 0.35)) for _ in range(2)]
    brighter = ImageEnhance.Brightness(image).enhance(factors[0])
    return _jpeg(ImageEnhance.Contrast(brighter).enhance(factors[1]))


def _text(image: Image.Image, random: np.random.Generator) -> Made:
    """Write a large line across the picture, and a small one in a corner."""
    drawn = image.convert("RGBA")
    layer = Image.new("RGBA", drawn.size)
    pencil, side = ImageDraw.Draw(layer), min(image.size)
    large, small = ImageFont.load_default(side / 6), ImageFont.load_default(side / 16)
    middle = (image.width / 2, image.height * float(random.uniform(0.3, 0.7)))
    pencil.text(middle, "SAMPLE", (255, 255, 255, 150), large, "mm", stroke_width=2, stroke_fill=(0, 0, 0, 150))
    pencil.text((image.width * 0.97, image.height * 0.97), "(c) photo 2024", (255, 255, 0, 255), small, "rs")
    return _jpeg(Image.alpha_composite(drawn, layer).convert("RGB"))


COPIES: Mapping[str, Copy] = {
    "re-encoded, JPEG q30": lambda image, random: _jpeg(image, 30),
    "scaled to a third": _third,
    "crop 80 %": _crop,
    "border": _border,
    "grey": lambda image, random: _jpeg(image.convert("L")),
    "mirrored": lambda image, random: _jpeg(ImageOps.mirror(image)),
    "turned 90 degrees": _turned,
    "brightness and contrast": _light,
    "watermark and text": _text,
    "other format": lambda image, random: (image, ".webp", 75),
}
"""By the kind of copy, the function that makes one."""


def write_copy(kind: str, picture: Path, place: Path, seed: int) -> Path:
    """Write a copy of ``picture`` as ``place`` with the suffix of its kind; return the path."""
    with Image.open(picture) as opened:
        made, suffix, quality = COPIES[kind](opened.convert("RGB"), np.random.default_rng(seed))
    path, buffer = place.with_suffix(suffix), io.BytesIO()
    made.save(buffer, {".jpg": "JPEG", ".webp": "WEBP"}[suffix], quality=quality)
    path.write_bytes(buffer.getvalue())
    return path
