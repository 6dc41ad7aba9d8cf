"""The pixels that a repository of transformers asks for, read from its ``preprocessor_config.json``.

The file names an image processor and changes some of its values. :data:`PROCESSORS` has the values that transformers'
own processors begin with. The arithmetic is ours, so pixels are the same with every version of transformers.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import ModelError
from retrieval.images.preprocessing import Region, crop_region, json_values, resize_then_crop, with_short_side

Triple = tuple[float, float, float]
Size = tuple[int, int]  # (height, width), pixels

BILINEAR, BICUBIC = int(Image.Resampling.BILINEAR), int(Image.Resampling.BICUBIC)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
RESCALE = 1 / 255
WARPED_FROM = 384  # pixels: ConvNeXT's processor crops below this size and distorts from there on


@dataclass(frozen=True)
class PixelRules:
    """Resize, centre crop, then ``(x / 255 - mean) / std`` for each channel."""

    resize: Size | int | None  # one number: the short side, the aspect ratio is kept; None: no resize
    crop: Size | None  # None: the image is used as it was resized
    resample: int  # a filter of Pillow
    mean: Triple
    std: Triple

    @property
    def output(self) -> Size:
        """(height, width) of the pixels."""
        size = self.crop or self.resize
        assert isinstance(size, tuple)
        return size

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return uint8 ``[height, width, 3]`` of the RGB image."""
        return resize_then_crop(image, self._resized(*image.size), self.output[::-1], self.resample)

    def region(self, width: int, height: int) -> Region:
        """Return the part of a picture of ``width`` x ``height`` pixels that the model sees."""
        return crop_region(self._resized(width, height), self.output[::-1])

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) before the crop."""
        if isinstance(self.resize, int):
            return with_short_side((width, height), self.resize)
        return (width, height) if self.resize is None else self.resize[::-1]

    def fingerprint(self) -> dict[str, Any]:
        """Return the rules as JSON values."""
        return json_values(self)


@dataclass(frozen=True)
class PatchRules:
    """Resize to at most ``most_patches`` square patches with little distortion, as SigLIP 2 NaFlex does.

    The pixels of one image are ``[1 + most_patches, patch x patch, 3]``. The first row begins with the numbers of
    patches in a column and in a row, two bytes each; the last rows may be empty.
    """

    patch: int  # pixels a side
    most_patches: int
    resample: int
    mean: Triple
    std: Triple

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return uint8 ``[1 + most_patches, patch x patch, 3]`` of the RGB image."""
        width, height = image.size
        rows, columns = self.grid(height, width)
        size = (columns * self.patch, rows * self.patch)
        pixels = resize_then_crop(image, size, size, self.resample)
        pixels = pixels.reshape(rows, self.patch, columns, self.patch, 3).transpose(0, 2, 1, 3, 4)
        prepared = np.zeros((1 + self.most_patches, self.patch**2, 3), np.uint8)
        prepared[1 : 1 + rows * columns] = pixels.reshape(rows * columns, self.patch**2, 3)
        prepared[0].reshape(-1)[:4] = np.array([rows, columns], "<u2").view(np.uint8)
        return prepared

    def grid(self, height: int, width: int) -> Size:
        """Return the patches in a column and in a row of an image.

        The largest scale whose patches are few enough is found by bisection, in the same steps as transformers.
        """

        def patches(scale: float) -> Size:
            rows, columns = (max(1, math.ceil(side * scale / self.patch)) for side in (height, width))
            return rows, columns

        low, high = 1e-6, 100.0
        while high - low >= 1e-5:
            middle = (low + high) / 2
            if math.prod(patches(middle)) <= self.most_patches:
                low = middle
            else:
                high = middle
        return patches(low)

    def fingerprint(self) -> dict[str, Any]:
        """Return the rules as JSON values."""
        return json_values(self)


@dataclass(frozen=True)
class _Processor:
    """The values that an image processor of transformers begins with."""

    size: Any
    resample: int = BICUBIC
    mean: Triple = HALF
    std: Triple = HALF
    crop: int | None = None  # pixels a side, where it crops unless told otherwise
    crop_stated: int = 224  # pixels a side, where it is told to crop and not how much
    square: bool = True  # one number as the size is that of a square, not of the short side
    more: Mapping[str, Any] = field(default_factory=dict)  # values that only this processor has


_CLIP = _Processor({"shortest_edge": 224}, mean=CLIP_MEAN, std=CLIP_STD, crop=224, square=False)
_VIT = _Processor({"height": 224, "width": 224}, BILINEAR)
PROCESSORS: Mapping[str, _Processor] = MappingProxyType(
    {
        "CLIPImageProcessor": _CLIP,
        "ChineseCLIPImageProcessor": _CLIP,
        "BitImageProcessor": _CLIP,
        "SiglipImageProcessor": replace(_VIT, resample=BICUBIC, square=False),
        "Siglip2ImageProcessor": replace(_VIT, more={"patch_size": 16, "max_num_patches": 256}),
        "ViTImageProcessor": _VIT,
        "DeiTImageProcessor": _Processor({"height": 256, "width": 256}, crop=224),
        "BeitImageProcessor": replace(_VIT, resample=BICUBIC),
        "BlipImageProcessor": _Processor({"height": 384, "width": 384}, mean=CLIP_MEAN, std=CLIP_STD),
        "ConvNextImageProcessor": _Processor({"shortest_edge": 384}, square=False, more={"crop_pct": 224 / 256}),
        "DINOv3ViTImageProcessor": replace(_VIT, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    }
)
"""The image processors that are known, by the name in the file."""


def read_pixel_rules(path: Path, usual: str) -> PixelRules | PatchRules:
    """Return the rules that a file states.

    Args:
        path: ``preprocessor_config.json``, or ``processor_config.json``, which holds the same one level deeper. A
            missing file stands for the usual processor's own values.
        usual: the processor to take where the file names none.

    Raises:
        ModelError: the file can't be read, names an unknown processor, or states no fixed size of pixels.
    """
    try:
        stated = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        stated = {key: value for key, value in stated.get("image_processor", stated).items() if value is not None}
        name = _name_of(stated, usual)
        if name not in PROCESSORS:
            raise ModelError(f"{path} names the unknown image processor {name}; known: {', '.join(PROCESSORS)}")
        return _rules(name, stated)
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} states no pixels of a fixed size: {error}") from error


def _name_of(stated: Mapping[str, Any], usual: str) -> str:
    """Return the processor's name without what names its implementation; before 2022 it was a feature extractor."""
    name = str(stated.get("image_processor_type") or stated.get("feature_extractor_type") or usual)
    name = name.replace("FeatureExtractor", "ImageProcessor")
    return name.removesuffix("Fast").removesuffix("Pil")


def _rules(name: str, stated: Mapping[str, Any]) -> PixelRules | PatchRules:
    processor = PROCESSORS[name]
    for key in ("do_pad", "rescale_offset"):
        if stated.get(key):
            raise ValueError(f"{key} is not supported")
    mean, std = _statistics(processor, stated)
    resample = int(stated.get("resample", processor.resample))
    if name == "Siglip2ImageProcessor":
        patch, most = (int(stated.get(key, own)) for key, own in processor.more.items())
        return PatchRules(patch, most, resample, mean, std)
    resize, crop = _sizes(name, processor, stated)
    if crop is None and not isinstance(resize, tuple):
        raise ValueError("it neither resizes to one height and width nor crops")
    return PixelRules(resize, crop, resample, mean, std)


def _statistics(processor: _Processor, stated: Mapping[str, Any]) -> tuple[Triple, Triple]:
    """Return mean and deviation of values between 0 and 1, whatever factor the file states."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if stated.get("do_normalize", True):
        mean, std = (_triple(stated.get(f"image_{key}", getattr(processor, key))) for key in ("mean", "std"))
    factor = float(stated.get("rescale_factor", RESCALE)) if stated.get("do_rescale", True) else 1.0
    unit = 1.0 if math.isclose(factor, RESCALE, rel_tol=1e-6) else 255 * factor
    return _triple([value / unit for value in mean]), _triple([value / unit for value in std])


def _sizes(name: str, processor: _Processor, stated: Mapping[str, Any]) -> tuple[Size | int | None, Size | None]:
    resize = _resize(stated.get("size", processor.size), processor.square) if stated.get("do_resize", True) else None
    crop: Size | None = None
    if stated.get("do_center_crop", processor.crop is not None):
        crop = _crop(stated.get("crop_size", processor.crop or processor.crop_stated))
    if name != "ConvNextImageProcessor" or resize is None:
        return resize, crop
    if not isinstance(resize, int) or crop is not None:
        raise ValueError("ConvNextImageProcessor takes one shortest edge and no crop")
    if resize >= WARPED_FROM:
        return (resize, resize), None
    return int(resize / float(stated.get("crop_pct", processor.more["crop_pct"]))), (resize, resize)


def _resize(size: Any, square: bool) -> Size | int:
    if isinstance(size, int):
        return (size, size) if square else size
    if isinstance(size, list | tuple):
        height, width = size
        return int(height), int(width)
    sides = {name: int(value) for name, value in size.items() if value is not None}
    if set(sides) == {"shortest_edge"}:
        return sides["shortest_edge"]
    if set(sides) == {"height", "width"}:
        return sides["height"], sides["width"]
    raise ValueError(f"the size {size} is neither a height and a width nor a shortest edge")


def _crop(size: Any) -> Size:
    found = _resize(size, square=True)
    if isinstance(found, int):
        raise ValueError(f"the crop {size} is not a height and a width")
    return found


def _triple(values: Any) -> Triple:
    r, g, b = values if isinstance(values, list | tuple) else (values, values, values)
    return float(r), float(g), float(b)
