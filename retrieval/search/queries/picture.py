"""Pictures to search with: an image file, its bytes, a PIL image or an array, read once and validated."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import ImageError, UsageError
from retrieval.files import absolute_path
from retrieval.images.decoding import DecodeRules, FileFacts, decode_bytes, from_array, read_image, to_rgb
from retrieval.search.queries.region import Region
from retrieval.search.results import Note

ImageInput = str | Path | bytes | Image.Image | NDArray[Any]
"""A path, a file's bytes, a PIL image, or a uint8 array ``[H, W, 3]``."""

UNNAMED = "the query"  # the name of bytes and arrays in messages


@dataclass(frozen=True, eq=False)
class Picture:
    """One image to search with, and what results say about it.

    :meth:`read` makes one by the rules of decoding of an index.

    Raises:
        UsageError: the picture is not RGB, or a size is not positive.
    """

    image: Image.Image  # RGB and upright: what is encoded, so the cut-out of a region
    width: int  # px of the whole image, upright; ``image`` may be a smaller decoding or a part of it
    height: int
    path: str | None = None  # absolute; None: the image did not come from a file
    sha256: str | None = None  # hex digits of the file's bytes; None: there are no such bytes
    partial: str = ""  # says which part of a cut file was used, as a clause; empty: the file is whole
    region: Region | None = None  # the part of the whole image that ``image`` is; None: all of it
    seeks_subject: bool = False  # a search has yet to cut the subject out of ``image``

    def __post_init__(self) -> None:
        if self.image.mode != "RGB":
            raise UsageError(f"a query's image must be RGB, not {self.image.mode}; Picture.read converts it")
        if min(self.width, self.height) < 1:
            raise UsageError(f"a query's size must be positive, not {self.width} x {self.height}")

    @classmethod
    def read(cls, image: ImageInput, rules: DecodeRules) -> "Picture":
        """Decode an image by the rules of the index that is searched.

        Raises:
            ImageError: the image can't be used; the message says why.
            UsageError: an array of another shape or dtype.
        """
        if isinstance(image, bytes):
            decoded, (width, height) = decode_bytes(image, UNNAMED, rules)
            return cls(decoded, width, height, sha256=hashlib.sha256(image).hexdigest())
        if isinstance(image, str | Path):
            decoded, facts = read_named(Path(image), rules)
            path = absolute_path(image)
            return cls(decoded, facts.width, facts.height, path, facts.sha256, facts.partial)
        picture = image if isinstance(image, Image.Image) else from_array(image, UNNAMED)
        decoded = to_rgb(picture, rules.alpha, rules.colour)
        return cls(decoded, decoded.width, decoded.height)

    def notes(self) -> list[Note]:
        """Return what a user should know about the image."""
        if not self.partial:
            return []
        return [Note("partial_query", f"{self.path} {self.partial}", facts={"path": self.path})]

    def about(self) -> dict[str, Any]:
        """Return what results say about the query, as JSON values."""
        about: dict[str, Any] = {"path": self.path, "width": self.width, "height": self.height}
        if self.sha256 is not None:
            about["sha256"] = self.sha256
        return about if self.region is None else {**about, "region": self.region.about()}


_DETAILS = {  # by the reason of an ImageError
    "vanished": "no such file: check the path",
    "not_an_image": "is not an image; name a JPEG, PNG, WebP, AVIF, GIF, TIFF, HEIC or BMP file",
}


def read_named(path: Path, rules: DecodeRules) -> tuple[Image.Image, FileFacts]:
    """Read an image that a user named; see :func:`retrieval.images.decoding.read_image`.

    Raises:
        ImageError: the file can't be used; the message says what to name instead.
    """
    try:
        return read_image(path, rules)
    except ImageError as error:
        detail = _DETAILS.get(error.reason)
        if path.is_dir():
            detail = f"is a folder; name images, like {path / '*.jpg'}"
        if detail is None:
            raise
        raise ImageError(error.reason, error.name, detail) from error
