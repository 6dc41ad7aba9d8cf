"""Resize and crop decoded images, and read the preprocessing that a model's folder states."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import ModelError, UsageError

# A strip that would have more pixels than this (200 MB) is cut before it is resized, not after.
_MAX_RESIZED_PIXELS = 2**26


def resize_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return the RGB image as uint8 [size, size, 3] by Lanczos; its aspect ratio is not kept.

    The published DiffSim code resizes the same way.

    Raises:
        UsageError: the image is not RGB, or the size is below 1.
    """
    _check_resize(image, size)
    return np.array(image.resize((size, size), Image.Resampling.LANCZOS))


def resize_and_crop(image: Image.Image, shortest: int, crop: int) -> NDArray[np.uint8]:
    """Return the centre of the RGB image as uint8 [crop, crop, 3], its short side made ``shortest`` px.

    Bicubic, with the rounding and offsets of transformers' CLIP and BiT processors. A ``crop`` beyond the image is
    padded with black. A strip that would take over 67 million px on the way is cut first; the picture stays nearly the
    same.

    Raises:
        UsageError: the image is not RGB, or a size is below 1.
    """
    _check_resize(image, shortest, crop)
    width, height = image.size
    stretched = int(shortest * max(width, height) / min(width, height))
    upright = width <= height
    new_width, new_height = (shortest, stretched) if upright else (stretched, shortest)
    box = (0.0, 0.0, float(width), float(height))
    if shortest * stretched > _MAX_RESIZED_PIXELS and crop < stretched:
        start = (stretched - crop) // 2
        first, last = (max(width, height) * at / stretched for at in (start, start + crop))
        box = (0.0, first, float(width), last) if upright else (first, 0.0, last, float(height))
        new_width, new_height = (shortest, crop) if upright else (crop, shortest)
    resized = image.resize((new_width, new_height), Image.Resampling.BICUBIC, box=box)
    left, top = (new_width - crop) // 2, (new_height - crop) // 2
    return np.array(resized.crop((left, top, left + crop, top + crop)))


def _check_resize(image: Image.Image, *sizes: int) -> None:
    if image.mode != "RGB":
        raise UsageError(f"an RGB image is needed, not one of mode {image.mode}; see to_rgb")
    if min(sizes) < 1:
        raise UsageError(f"an image can't be resized to {min(sizes)} px")


@dataclass(frozen=True)
class Preprocessing:
    """Bicubic resize of the short side, centre crop, then ``(x / 255 - mean) / std`` for each channel."""

    shortest: int  # pixels
    crop: int  # pixels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CLIP_PREPROCESSING = Preprocessing(224, 224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


DINOV2_PREPROCESSING = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def read_preprocessing(folder: Path, default: Preprocessing) -> Preprocessing:
    """Return the sizes and statistics that a folder states, completed by those of ``default``.

    Raises:
        ModelError: the folder's file can't be read.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return default
    try:
        stated = json.loads(path.read_text("utf-8"))
        size, crop = stated.get("size", default.shortest), stated.get("crop_size", default.crop)
        return Preprocessing(
            shortest=int(size["shortest_edge"] if isinstance(size, dict) else size),
            crop=int(crop["height"] if isinstance(crop, dict) else crop),
            mean=_triple(stated.get("image_mean", default.mean)),
            std=_triple(stated.get("image_std", default.std)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} does not state a resize, a square crop and three means: {error}") from error


def _triple(values: Any) -> tuple[float, float, float]:
    r, g, b = values
    return float(r), float(g), float(b)
