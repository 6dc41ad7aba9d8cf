"""What may be asked with: a file, its bytes, a picture or an array."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images.decoding import DecodeRules, FileFacts, decode_bytes, from_array, read_image, to_rgb

ImageInput = str | Path | bytes | Image.Image | NDArray[Any]
"""A path, a file's bytes, a PIL image, or a uint8 array ``[H, W, 3]``."""


def read_named(path: Path, rules: DecodeRules) -> tuple[Image.Image, FileFacts]:
    """Read an image that a user named; see :func:`retrieval.images.decoding.read_image`.

    Raises:
        ImageError: it is no usable image; the message says what to name instead.
    """
    try:
        return read_image(path, rules)
    except ImageError as error:
        advice = {
            "vanished": "no such file: check the path",
            "not_an_image": "is no image; name a JPEG, PNG, WebP, AVIF, GIF, TIFF or BMP file",
        }.get(error.reason)
        if path.is_dir():
            advice = f"is a folder; name images, like {path / '*.jpg'}"
        if advice is None:
            raise
        raise ImageError(error.reason, error.name, advice) from error


@dataclass(frozen=True)
class LoadedQuery:
    """A query as an RGB image, and what results tell of it."""

    image: Image.Image
    about: Mapping[str, Any]


def load_query(query: ImageInput, rules: DecodeRules) -> LoadedQuery:
    """Read a query.

    Raises:
        ImageError: it is no usable image.
    """
    if isinstance(query, bytes):
        image, (width, height) = decode_bytes(query, "the query", rules)
        digest = hashlib.sha256(query).hexdigest()
        return LoadedQuery(image, {"path": None, "width": width, "height": height, "sha256": digest})
    if isinstance(query, str | Path):
        image, facts = read_named(Path(query), rules)
        size = {"width": facts.width, "height": facts.height}
        return LoadedQuery(image, {"path": str(Path(query).absolute()), **size, "sha256": facts.sha256})
    picture = query if isinstance(query, Image.Image) else from_array(query, "the query")
    image = to_rgb(picture, rules.alpha)
    return LoadedQuery(image, {"path": None, "width": image.width, "height": image.height})
