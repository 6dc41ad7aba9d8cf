"""Cut a region out of a picture at its full resolution, so that a small subject gets every token of the model."""

from dataclasses import replace

import numpy as np
from PIL import Image

from retrieval.errors import UsageError
from retrieval.images.decoding import DecodeRules
from retrieval.search.queries.picture import UNNAMED, ImageInput, Picture
from retrieval.search.queries.region import Box, Mask, Region, Subject, box_of_mask, pixels_of
from retrieval.types import Fractions

WHITE = 128  # of 255: a mask's box lies around pixels from here on, so that traces of JPEG don't widen it


def read_region(image: ImageInput | Picture, region: Box | Mask | Subject, rules: DecodeRules) -> Picture:
    """Read an image and keep a region of it; a region that is the whole image changes nothing.

    A :class:`Picture` is cut as it was decoded. A subject is cut out by :func:`cut_subject`, once a model has seen it.

    Args:
        image: the image, or one that was read.
        region: which part of it counts.
        rules: of the index; a draft of a JPEG is not used, since it would lose the region's detail.

    Raises:
        ImageError: the image or the mask can't be used.
        UsageError: the region does not lie inside the image, or nothing of the mask is white.
    """
    read = image if isinstance(image, Picture) else Picture.read(image, replace(rules, draft=None))
    if isinstance(region, Subject):
        return replace(read, seeks_subject=read.region is None)
    chosen = _of_box(region, read) if isinstance(region, Box) else _of_mask(region, read, rules)
    if chosen is not None:
        return replace(read, image=read.image.crop(pixels_of(chosen.box, read.image.size)), region=chosen)
    return read if isinstance(image, Picture) else Picture.read(image, rules)


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


def _of_mask(given: Mask, picture: Picture, rules: DecodeRules) -> Region | None:
    mask, path = _grey(given, rules)
    box = box_of_mask(np.asarray(mask), WHITE)
    if box is None:
        raise UsageError(f"the mask {path or ''} has no white pixel: white is what counts".replace("  ", " "))
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
