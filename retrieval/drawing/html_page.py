"""Draw a contact sheet as one HTML file without scripts or outside files, for light and dark screens."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from retrieval.drawing.cells import SheetCell, SheetRow, Thumbnails
from retrieval.text import printable

_SIDE = 288

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --paper: #fff; --mat: #f2f3f6; --line: #dee1e7; --ink: #1a1d26; --grey: #686d7a;
  --accent: #c92a4b; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #14161b; --mat: #1f222a; --line: #343945; --ink: #eceef3; --grey: #9aa0ae; --accent: #ff6b86; }}
}}
* {{ box-sizing: border-box; margin: 0; }}
body {{ background: var(--paper); color: var(--ink); font: 15px/1.4 system-ui, sans-serif;
  padding: clamp(1rem, 3vw, 2.5rem); }}
h1 {{ font-size: 1.6rem; font-weight: 650; margin-bottom: 1.2rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; font-weight: 600; margin-bottom: .9rem; overflow-wrap: anywhere; }}
section {{ border-top: 1px solid var(--line); padding: 1rem 0 1.8rem; }}
.row {{ display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }}
.query {{ flex: 0 0 11rem; }}
.query .frame {{ outline: 3px solid var(--accent); outline-offset: 3px; border-radius: 3px; }}
.query b {{ color: var(--accent); }}
ol {{ flex: 1 1 18rem; list-style: none; padding: 0; display: grid; gap: 1.1rem .9rem;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }}
figure {{ min-width: 0; }}
.frame {{ display: grid; place-items: center; aspect-ratio: 1; background: var(--mat); color: var(--grey);
  border-radius: 3px; overflow: hidden; text-decoration: none; }}
.frame img {{ display: block; width: 100%; height: 100%; object-fit: contain; }}
a.frame:hover, a.frame:focus-visible {{ outline: 2px solid var(--accent); outline-offset: 2px; }}
figcaption {{ display: grid; grid-template-columns: auto 1fr; gap: 0 .6rem; margin-top: .45rem; }}
figcaption b {{ font-weight: 500; color: var(--grey); }}
figcaption span {{ text-align: right; font-variant-numeric: tabular-nums; }}
figcaption small {{ grid-column: 1 / -1; color: var(--grey); overflow-wrap: anywhere; }}
.empty {{ color: var(--grey); }}
</style>
</head>
<body>
{heading}<main>
{rows}</main>
</body>
</html>
"""


def html_page(rows: Sequence[SheetRow], heading: str = "") -> str:
    """Return ``rows`` as a page that embeds its thumbnails and links to their files."""
    thumbnails = Thumbnails(_SIDE)
    sections = "".join(_section(row, thumbnails) for row in rows)
    title = _text(heading) or "Image search"
    return _PAGE.format(title=title, heading=f"<h1>{title}</h1>\n" if heading else "", rows=sections)


def _section(row: SheetRow, thumbnails: Thumbnails) -> str:
    cells = [f"<li>{_figure(cell, thumbnails, str(k))}</li>\n" for k, cell in enumerate(row.neighbours, start=1)]
    found = f"<ol>\n{''.join(cells)}</ol>" if cells else '<p class="empty">no results</p>'
    query = _figure(row.query, thumbnails, "query")
    return f'<section>\n<h2>{_text(row.title)}</h2>\n<div class="row">\n{query}\n{found}\n</div>\n</section>\n'


def _figure(cell: SheetCell, thumbnails: Thumbnails, label: str) -> str:
    caption = _text(cell.caption) if cell.caption != label else ""
    described = ", ".join(part for part in (label, _text(cell.note), caption) if part)
    picture = thumbnails.of(cell.image)
    if picture is None:
        inner = f'<span role="img" aria-label="{described}: not found">not found</span>'
    else:
        inner = f'<img src="{_data_uri(picture)}" width="{picture.width}" height="{picture.height}" alt="{described}">'
    frame = f'<div class="frame">{inner}</div>'
    if isinstance(cell.image, Path):
        frame = f'<a class="frame" href="{_address(cell.image)}">{inner}</a>'
    note = f"<small>{_text(cell.note)}</small>" if cell.note else ""
    kind = ' class="query"' if label == "query" else ""
    return f"<figure{kind}>{frame}<figcaption><b>{label}</b><span>{caption}</span>{note}</figcaption></figure>"


def _text(text: str) -> str:
    return escape(printable(text), quote=True)


def _address(path: Path) -> str:
    # as_uri() percent-encodes every byte that has a meaning in an address.
    return escape(path.absolute().as_uri(), quote=True)


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=84)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
