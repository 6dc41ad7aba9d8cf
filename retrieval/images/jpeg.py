"""Decode JPEG files, and those that end early as far as they go."""

import re
from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from retrieval.images.pixels import SIDEWAYS, turn_of

LEAST_SHARE = 0.5  # of the rows that a cut file must have to be used: else the grey filling outweighs the picture
_END = b"\xff\xd9"
_START_OF_SCAN = 0xDA
_LEAST_SCANS = 3  # the last one is cut; the two before it are the colours of the blocks and their coarsest detail
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # not a data byte, not a restart mark, not filling
_NOISE_BYTES = 4096  # far more than a row of blocks needs to differ from the filling


DraftOf = Callable[[tuple[int, int]], int | None]
"""Gives the draft of an upright picture of (width, height) px. It decodes at the smallest scale whose short side is
twice as many px or more; None: in full."""


def open_jpeg(data: bytes, draft_of: DraftOf) -> tuple[JpegImageFile, tuple[int, int]]:
    """Open a JPEG to be decoded as a draft; return it with the (width, height) in px of the full image as stored."""
    image = JpegImageFile(BytesIO(data))
    full = image.size
    draft = draft_of(full[::-1] if turn_of(image) in SIDEWAYS else full)
    if draft is not None:
        image.draft(None, (2 * draft, 2 * draft))
    return image, full


def decode_cut(data: bytes, draft_of: DraftOf) -> tuple[Image.Image, float]:
    """Decode a JPEG that ends early; return it with the share of its rows that are there, 0 to 1.

    libjpeg fills what is missing with grey. The share is 1 where only the end mark is missing. A progressive file has
    all rows after its first scan and gains detail with every other one: its share is 1 after two scans, else 0.
    """
    image = _ended(data, b"", draft_of)
    if image.info.get("progressive"):
        return image, float(_scans(data) >= _LEAST_SCANS)
    # Rows that come out the same whatever follows have all their data.
    other = _ended(data, np.random.default_rng(0).integers(0, 255, _NOISE_BYTES, np.uint8).tobytes(), draft_of)
    return image, _equal_rows(np.asarray(image), np.asarray(other)) / image.height


def _ended(data: bytes, more: bytes, draft_of: DraftOf) -> JpegImageFile:
    image, _ = open_jpeg(data.rstrip(b"\xff") + more + _END, draft_of)
    image.load()
    return image


def _equal_rows(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> int:
    """Return how many rows, from the top, are equal."""
    differ = (first != second).reshape(len(first), -1).any(axis=1)
    return int(differ.argmax()) if differ.any() else len(first)


def _scans(data: bytes) -> int:
    """Count the scans of the first picture in a JPEG; those of a preview inside its metadata don't count."""
    scans, at = 0, 2
    while found := _MARKER.search(data, at):
        kind = data[found.start() + 1]
        if kind == _END[1]:
            break
        scans += kind == _START_OF_SCAN
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return scans
