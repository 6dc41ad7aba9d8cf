"""Questions as the fields of a request: files are read here, and sent with it."""

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from retrieval.errors import UsageError
from retrieval.files import absolute_path, is_object
from retrieval.images.decoding import from_array
from retrieval.images.file_bytes import read_bytes
from retrieval.search.filters.filter import Filter
from retrieval.search.queries.picture import UNNAMED, ImageInput, Picture
from retrieval.search.queries.query import Query
from retrieval.search.queries.region import Box, RegionInput, Subject


def question_json(query: Query, items: Mapping[str, int]) -> dict[str, Any]:
    """Return the fields of a question; ``items`` has the ids of the server's items by path."""
    regions = query.regions or (None,) * len(query.images)
    images = [image_json(image, items) | _region(region) for image, region in zip(query.images, regions, strict=True)]
    minus = [image_json(image, items) for image in query.minus]
    for fields, weights in ((images, query.weights), (minus, query.minus_weights)):
        for each, weight in zip(fields, weights or (), strict=False):
            each["weight"] = weight
    return {"images": images, "minus": minus, "combine": query.combine, "texts": list(query.texts)}


def image_json(image: ImageInput | Picture, items: Mapping[str, int]) -> dict[str, Any]:
    """Return where a picture's bytes come from: an item of the server, or the bytes themselves.

    Raises:
        ImageError: a file of this machine can't be read.
        UsageError: an array that is no picture.
    """
    if isinstance(image, str | Path) and str(image) in items:
        return {"id": items[str(image)]}
    return {"base64": base64.b64encode(_bytes(image)).decode()}


def filter_json(where: Filter | None) -> dict[str, Any]:
    """Return the fields of a filter; a UsageError for a table, which a server does not read."""
    if where is None:
        return {}
    if where.where is not None:
        raise UsageError("a server reads no table of metadata: leave the condition out, or search without the server")
    about = where.about()
    if "under" in about:
        about["under"] = [folder if is_object(folder) else os.path.abspath(folder) for folder in about["under"]]
    return about


def local_path(image: ImageInput | Picture, items: Mapping[str, int]) -> str | None:
    """Return the absolute path of a picture that was read on this machine."""
    if isinstance(image, Picture):
        return image.path
    return absolute_path(image) if isinstance(image, str | Path) and str(image) not in items else None


def _bytes(image: ImageInput | Picture) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        return read_bytes(Path(image))[0]
    if isinstance(image, Picture):
        if image.region is not None:
            raise UsageError("a picture that is a cut-out can't be sent: give the whole picture and its region")
        picture = image.image
    else:
        picture = image if isinstance(image, Image.Image) else from_array(image, UNNAMED)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _region(region: RegionInput) -> dict[str, Any]:
    if region is None:
        return {}
    if isinstance(region, Box):
        return {"box": [region.x, region.y, region.width, region.height]}
    if isinstance(region, Subject):
        return {"subject": True}
    return {"mask": image_json(region.image, {})}
