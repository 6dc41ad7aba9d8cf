"""Write a contact sheet as a picture or an HTML page."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from retrieval.drawing.cells import SheetRow
from retrieval.drawing.contact_sheet import contact_sheet
from retrieval.errors import UsageError
from retrieval.files import check_writable, write_bytes

# The format by suffix, and its longest possible side in pixels.
_PICTURES = {".png": ("PNG", 2**31), ".jpg": ("JPEG", 65535), ".jpeg": ("JPEG", 65535), ".webp": ("WEBP", 16383)}
_PAGES = (".html", ".htm")
_NAMES = ", ".join(_PICTURES)
_ACCEPTED = ", ".join((*_PICTURES, *_PAGES))


def write_sheet(path: Path, rows: Sequence[SheetRow], heading: str = "") -> None:
    """Write ``rows`` as ``path``: a picture for .png, .jpg, .jpeg and .webp, a page for .html and .htm.

    The folder is made if it does not exist. An older file is replaced only by a complete new one.

    Raises:
        UsageError: another suffix, or a picture that is too large for its format.
        DiffSimError: the file can't be written.
    """
    check_sheet(path)
    if path.suffix.lower() in _PAGES:
        from retrieval.drawing.html_page import html_page

        data = html_page(rows, heading).encode()
    else:
        data = _encoded(contact_sheet(rows, heading), path)
    write_bytes(path, data)


def check_sheet(path: Path) -> None:
    """Raise the errors of :func:`write_sheet` before the work that fills the sheet."""
    if path.suffix.lower() not in (*_PAGES, *_PICTURES):
        raise UsageError(f"a sheet can't be written as {path.name!r}: its name must end in one of {_ACCEPTED}")
    check_writable(path)


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture as ``path`` (.png, .jpg, .jpeg or .webp); errors as in :func:`write_sheet`."""
    check_picture(path)
    write_bytes(path, _encoded(picture, path))


def check_picture(path: Path) -> None:
    """Raise the errors of :func:`write_picture` before the work that fills the picture."""
    if path.suffix.lower() not in _PICTURES:
        raise UsageError(f"no picture can be written as {path.name!r}: its name must end in one of {_NAMES}")
    check_writable(path)


def _encoded(sheet: Image.Image, path: Path) -> bytes:
    kind, longest = _PICTURES[path.suffix.lower()]
    if max(sheet.size) > longest:
        size = f"{sheet.width} x {sheet.height}"
        raise UsageError(f"{path.name}: a picture of {size} pixels is too large for {kind}; write a .png")
    buffer = io.BytesIO()
    sheet.save(buffer, kind, quality=90)
    return buffer.getvalue()
