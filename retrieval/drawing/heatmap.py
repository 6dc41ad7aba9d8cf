"""Draw heat maps with Pillow: numbers in cells, coloured from pale to dark."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from retrieval.errors import DiffSimError, UsageError
from retrieval.files import check_writable

_CELL, _ROW, _TOP, _MARGIN = 92, 44, 92, 20
_PALE, _DARK = (247, 243, 235), (24, 78, 119)
_INK, _WHITE = (26, 29, 38), (255, 255, 255)


def draw_heatmap(
    values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], title: str, by_row: bool = False
) -> Image.Image:
    """Return an RGB picture of ``values[row][column]`` (0 to 1) in percent; the best cell has a frame.

    With ``by_row``, each row has its own scale and best cell, for rows that measure different things.
    """
    font, large = ImageFont.load_default(size=15), ImageFont.load_default(size=18)
    left = round(max(font.getlength(name) for name in rows)) + 2 * _MARGIN
    width = max(left + _CELL * len(columns) + _MARGIN, round(large.getlength(title)) + 2 * _MARGIN)
    picture = Image.new("RGB", (width, _TOP + _ROW * len(rows) + _MARGIN), _WHITE)
    pencil = ImageDraw.Draw(picture)
    pencil.text((_MARGIN, 16), title, font=large, fill=_INK)
    for j, name in enumerate(columns):
        centre = (left + (j + 0.5) * _CELL, _TOP - 24)
        pencil.multiline_text(centre, _broken(name, font), font=font, fill=_INK, anchor="mm", align="center", spacing=2)
    everything = [value for row in values for value in row]
    for i, name in enumerate(rows):
        y = _TOP + i * _ROW
        scale = values[i] if by_row else everything
        pencil.text((left - 12, y + _ROW / 2), name, font=font, fill=_INK, anchor="rm")
        for j, value in enumerate(values[i]):
            _draw_cell(pencil, (left + j * _CELL, y), value, min(scale), max(scale))
    return picture


def _draw_cell(pencil: ImageDraw.ImageDraw, at: tuple[int, int], value: float, low: float, high: float) -> None:
    x, y = at
    share = (value - low) / (high - low) if high > low else 0.5
    box = (x, y, x + _CELL - 2, y + _ROW - 2)
    pencil.rectangle(box, fill=_mix(share))
    if value == high:
        pencil.rectangle(box, outline=(214, 58, 84), width=3)
    ink, font = _WHITE if share > 0.5 else _INK, ImageFont.load_default(size=15)
    pencil.text((x + _CELL / 2, y + _ROW / 2), f"{100 * value:.1f}", font=font, fill=ink, anchor="mm")


def _broken(name: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Break a name that is wider than its column at the hyphen nearest to the middle."""
    hyphens = [index for index, letter in enumerate(name) if letter == "-"]
    if font.getlength(name) <= _CELL - 8 or not hyphens:
        return name
    nearest = min(hyphens, key=lambda index: abs(index - len(name) / 2))
    return f"{name[: nearest + 1]}\n{name[nearest + 1 :]}"


def write_heatmap(path: Path, picture: Image.Image) -> None:
    """Write a heat map as a PNG.

    Raises:
        UsageError: another suffix.
        DiffSimError: the file can't be written.
    """
    check_heatmap(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, "PNG")
    except OSError as error:
        raise DiffSimError(f"{path} can't be written: {error.strerror or error}") from error


def check_heatmap(path: Path) -> None:
    """Raise the errors of :func:`write_heatmap` before the work that measures."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path.name}: a heat map's name must end in .png")
    check_writable(path)


def _mix(share: float) -> tuple[int, int, int]:
    r, g, b = (round(pale + (dark - pale) * share) for pale, dark in zip(_PALE, _DARK, strict=True))
    return r, g, b
