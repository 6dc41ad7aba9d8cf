"""Cut a region out of a picture at its full resolution, so that a small subject gets every token of the model."""

from dataclasses import replace

import numpy as np
from PIL import Image

from retrieval.errors import UsageError
from retrieval.images.decoding import DecodeRules
from retrieval.search.queries.picture import UNNAMED, ImageInput, Picture
from retrieval.search.queries.region import Box, Mask, Region, Subject, box_of_mask, pixels_of
from retrieval.types import LEAST_SUBJECT, Fractions

_LEAST_SUBJECT = Box(0, 0, LEAST_SUBJECT, LEAST_SUBJECT)
WHITE = 128  # of 255: a mask's box lies around pixels from here on, so that traces of JPEG don't widen it


def read_region(image: ImageInput | Picture, region: Box | Mask | Subject, rules: DecodeRules) -> Picture:
    """Read an image and keep a region of it; a region that is the whole image changes nothing.

    A :class:`Picture` is cut as it was decoded. A subject is cut out by :func:`cut_subject`, once a model has seen it.

    Args:
        image: the image, or one that was read.
        region: which part of it counts.
        rules: of the index; a draft of a JPEG keeps as much of the region as it would of a whole image.

    Raises:
        ImageError: the image or the mask can't be used.
        UsageError: the region does not lie inside the image, or nothing of the mask is white.
    """
    if isinstance(region, Subject):
        read = _read(image, _LEAST_SUBJECT, rules)
        return replace(read, seeks_subject=read.region is None)
    if isinstance(region, Box):
        read = _read(image, region, rules)
        chosen = _of_box(region, read)
    else:
        mask, path = _grey(region, rules)
        box = _box_of(mask, path)
        read = _read(image, Box(*box), rules)
        chosen = _of_mask(mask, path, box, read)
    if chosen is None:
        return read
    return replace(read, image=read.image.crop(pixels_of(chosen.box, read.image.size)), region=chosen)


def _read(image: ImageInput | Picture, part: Box, rules: DecodeRules) -> Picture:
    return image if isinstance(image, Picture) else Picture.read(image, in_detail(rules, part))


def in_detail(rules: DecodeRules, part: Box) -> DecodeRules:
    """Return the rules that keep as much of a part of a picture as ``rules`` keep of a whole one."""
    return replace(rules, part_px=part.short_side)


def cut_subject(picture: Picture, box: Fractions | None) -> Picture:
    """Return the picture cut to the box of its subject, in fractions; None: all of it is the subject."""
    found = replace(picture, seeks_subject=False)
    if box is None or _is_whole(box, picture):
        return found
    cut = picture.image.crop(pixels_of(box, picture.image.size))
    return replace(found, image=cut, region=Region(box, is_subject=True))


def _of_box(box: Box, picture: Picture) -> Region | None:
    fractions = box.of(picture.width, picture.height, picture.path or UNNAMED)
    return None if _is_whole(fractions, picture) else Region(fractions)


def _is_whole(box: Fractions, picture: Picture) -> bool:
    return pixels_of(box, picture.image.size) == (0, 0, *picture.image.size)


def _box_of(mask: Image.Image, path: str | None) -> Fractions:
    box = box_of_mask(np.asarray(mask), WHITE)
    if box is None:
        raise UsageError(f"the mask {path or ''} has no white pixel: white is what counts".replace("  ", " "))
    return box


def _of_mask(mask: Image.Image, path: str | None, box: Fractions, picture: Picture) -> Region | None:
    cut = mask.crop(pixels_of(box, mask.size))
    least, most = cut.getextrema()
    if least != most:
        return Region(box, cut, True, path)
    return None if _is_whole(box, picture) else Region(box, None, True, path)


def _grey(given: Mask, rules: DecodeRules) -> tuple[Image.Image, str | None]:
    """Return a mask in mode L, and its path; a transparent pixel counts by its colour alone."""
    image = given.image
    if isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype in (np.bool_, np.uint8):
        image = Image.fromarray(np.where(image, 255, 0).astype(np.uint8) if image.dtype == np.bool_ else image)
    read = Picture.read(image, DecodeRules("drop", max_pixels=rules.max_pixels, colour="ignored"))
    return read.image.convert("L"), read.path
