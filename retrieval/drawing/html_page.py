"""Draw a contact sheet as one HTML file without scripts or outside files, for light and dark screens."""

import base64
import io
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from PIL import Image

from retrieval.drawing.cells import SheetCell, SheetRow, Thumbnails
from retrieval.files import is_object, object_name
from retrieval.images.shards.naming import member_of
from retrieval.text import printable

_SIDE = 288
_TEMPLATE = "page.html"  # beside this module


def html_page(rows: Sequence[SheetRow], heading: str = "") -> str:
    """Return ``rows`` as a page that embeds its thumbnails and links to their files."""
    thumbnails = Thumbnails(_SIDE)
    sections = "".join(_section(row, thumbnails) for row in rows)
    title = _text(heading) or "Image search"
    page = Template(files(__package__).joinpath(_TEMPLATE).read_text("utf-8"))
    return page.substitute(title=title, heading=f"<h1>{title}</h1>\n" if heading else "", rows=sections)


def _section(row: SheetRow, thumbnails: Thumbnails) -> str:
    cells = [f"<li>{_figure(cell, thumbnails, str(k), False)}</li>\n" for k, cell in enumerate(row.neighbours, start=1)]
    found = f"<ol>\n{''.join(cells)}</ol>" if cells else '<p class="empty">no results</p>'
    query = _figure(row.query, thumbnails, row.label, True)
    return f'<section>\n<h2>{_text(row.title)}</h2>\n<div class="row">\n{query}\n{found}\n</div>\n</section>\n'


def _figure(cell: SheetCell, thumbnails: Thumbnails, label: str, stands_apart: bool) -> str:
    caption = _text(cell.caption) if cell.caption != label else ""
    described = ", ".join(part for part in (label, _text(cell.note), caption) if part)
    picture = thumbnails.of(cell)
    if picture is None:
        inner = f'<span role="img" aria-label="{described}: not found">not found</span>'
    else:
        inner = f'<img src="{_data_uri(picture)}" width="{picture.width}" height="{picture.height}" alt="{described}">'
    frame = f'<div class="frame">{inner}</div>'
    if isinstance(cell.image, Path):
        frame = f'<a class="frame" href="{_address(cell.image)}">{inner}</a>'
    note = f"<small>{_text(cell.note)}</small>" if cell.note else ""
    kind = ' class="query"' if stands_apart else ""
    return f"<figure{kind}>{frame}<figcaption><b>{label}</b><span>{caption}</span>{note}</figcaption></figure>"


def _text(text: str) -> str:
    return escape(printable(text), quote=True)


def _address(path: Path) -> str:
    """Return the address of a picture's file; of a picture inside a shard, that of the shard."""
    if is_object(path):
        return escape(object_name(path), quote=True)
    member = member_of(str(path))
    # as_uri() percent-encodes every byte that has a meaning in an address.
    return escape((Path(member.shard) if member else path).absolute().as_uri(), quote=True)


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=84)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
