"""Small pictures in every format, and what decoding gives for them."""

import io

import numpy as np
import pytest
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images.decoding import DecodeRules, decode_bytes

RULES = DecodeRules()
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "AVIF", "BMP", "DIB", "MPO")
STORED_AS = {  # how the upright picture lies in the file, for each EXIF orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth(width: int, height: int) -> Image.Image:
    """A picture without fine detail, that lossy formats keep well."""
    return noise(6, 5).resize((width, height), Image.Resampling.BICUBIC)


def pixels(data: bytes, rules: DecodeRules = RULES) -> np.ndarray:
    image, _ = decode_bytes(data, "x", rules)
    assert image.mode == "RGB"
    return np.asarray(image)


def reason(data: bytes, rules: DecodeRules = RULES) -> str:
    with pytest.raises(ImageError) as caught:
        decode_bytes(data, "x", rules)
    assert caught.value.name == "x"
    assert caught.value.detail
    return caught.value.reason


def samples() -> dict[str, bytes]:
    image = smooth(40, 24)
    many = {"save_all": True, "append_images": [image.rotate(180)]}
    found = {kind: encode(image, kind, **(many if kind == "MPO" else {})) for kind in FORMATS}
    found["TIFF lzw"] = encode(image, "TIFF", compression="tiff_lzw")
    found["JPEG progressive"] = encode(image, "JPEG", progressive=True)
    found["WEBP lossless"] = encode(image, "WEBP", lossless=True)
    found["GIF frames"] = encode(image.convert("P"), "GIF", **many)
    found["PNG palette"] = encode(image.convert("P"), "PNG", transparency=3)
    found["PNG 16"] = encode(Image.fromarray(np.arange(960, dtype=np.uint16).reshape(24, 40)), "PNG")
    found["JPEG turned"] = encode(image, "JPEG", exif=turned(6))
    return found


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


SAMPLES = samples()
