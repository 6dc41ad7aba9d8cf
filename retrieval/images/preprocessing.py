"""Resize and crop decoded images, and read the preprocessing that a model's folder states."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import ModelError, UsageError

Region = tuple[float, float, float, float]
"""(left, top, right, bottom) in fractions of a picture's width and height; padding reaches below 0 or above 1."""

WHOLE: Region = (0.0, 0.0, 1.0, 1.0)

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


def resize_square_fast(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return the RGB image as uint8 [size, size, 3] by Hamming's filter; its aspect ratio is not kept.

    The filter reads a third of the pixels of Lanczos, and its time grows with them. So a side of four sizes or more is
    first averaged by a whole factor, down to two sizes or more. Lanczos enlarges smaller images, since it is smoother.

    Raises:
        UsageError: the image is not RGB, or the size is below 1.
    """
    _check_resize(image, size)
    resample = Image.Resampling.HAMMING if min(image.size) >= size else Image.Resampling.LANCZOS
    return np.array(image.resize((size, size), resample, reducing_gap=2.0))


def resize_and_crop(image: Image.Image, shortest: int, crop: int) -> NDArray[np.uint8]:
    """Return the centre of the RGB image as uint8 [crop, crop, 3], its short side made ``shortest`` px.

    Bicubic, with the rounding and offsets of transformers' CLIP and BiT processors. A ``crop`` beyond the image is
    padded with black. A strip that would take over 67 million px on the way is cut first; the picture stays nearly the
    same.

    Raises:
        UsageError: the image is not RGB, or a size is below 1.
    """
    return resize_then_crop(image, with_short_side(image.size, shortest), (crop, crop), Image.Resampling.BICUBIC)


def with_short_side(size: tuple[int, int], shortest: int) -> tuple[int, int]:
    """Return (width, height) after a resize of the short side to ``shortest`` px, rounded as transformers does."""
    width, height = size
    stretched = int(shortest * max(width, height) / min(width, height))
    return (shortest, stretched) if width <= height else (stretched, shortest)


def crop_region(size: tuple[int, int], crop: tuple[int, int]) -> Region:
    """Return the part of a picture that a centre crop leaves; both sizes are (width, height) in pixels."""
    left, top = ((have - want) // 2 for have, want in zip(size, crop, strict=True))
    return left / size[0], top / size[1], (left + crop[0]) / size[0], (top + crop[1]) / size[1]


def resize_then_crop(
    image: Image.Image, size: tuple[int, int], crop: tuple[int, int], resample: int
) -> NDArray[np.uint8]:
    """Resize the RGB image to ``size`` and return its centre as uint8 ``[height, width, 3]``.

    A crop beyond the image is padded with black, with transformers' offsets. A strip that would take over 67 million px
    on the way is cut first; the picture stays nearly the same.

    Args:
        image: an RGB image.
        size: (width, height) after the resize, pixels.
        crop: (width, height) of the result, pixels.
        resample: the number of a filter of Pillow.

    Raises:
        UsageError: the image is not RGB, or a size is below 1.
    """
    _check_resize(image, *size, *crop)
    box = [0.0, 0.0, *map(float, image.size)]
    kept = list(size)
    long = int(size[1] >= size[0])  # the axis
    if size[0] * size[1] > _MAX_RESIZED_PIXELS and crop[long] < size[long]:
        start = (size[long] - crop[long]) // 2
        box[long], box[long + 2] = (image.size[long] * at / size[long] for at in (start, start + crop[long]))
        kept[long] = crop[long]
    resized_image = image.resize((kept[0], kept[1]), resample, box=(box[0], box[1], box[2], box[3]))
    left, top = ((have - want) // 2 for have, want in zip(kept, crop, strict=True))
    return np.array(resized_image.crop((left, top, left + crop[0], top + crop[1])))


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

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return ``[crop, crop, 3]``; see :func:`resize_and_crop`."""
        return resize_and_crop(image, self.shortest, self.crop)

    @property
    def output(self) -> tuple[int, int]:
        """(height, width) of the pixels."""
        return self.crop, self.crop

    def region(self, width: int, height: int) -> Region:
        """Return the part of a picture of ``width`` x ``height`` pixels that the model sees."""
        return crop_region(with_short_side((width, height), self.shortest), (self.crop, self.crop))

    def fingerprint(self) -> dict[str, Any]:
        """Return the rules as JSON values."""
        return json_values(self)


def json_values(rules: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON values."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(rules).items()}


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
