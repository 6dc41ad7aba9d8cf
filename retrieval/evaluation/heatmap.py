"""Heat maps, drawn with Pillow: numbers in cells, coloured from pale to dark."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from retrieval.errors import DiffSimError, UsageError

_CELL, _ROW, _LEFT, _TOP, _MARGIN = 92, 44, 110, 84, 20
_PALE, _DARK = (247, 243, 235), (24, 78, 119)
_INK, _WHITE = (26, 29, 38), (255, 255, 255)


def draw_heatmap(
    values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], title: str
) -> Image.Image:
    """Return an RGB picture of ``values[row][column]`` in percent; the best cell is framed."""
    flat = [value for row in values for value in row]
    low, high = min(flat), max(flat)
    width = _LEFT + _CELL * len(columns) + _MARGIN
    picture = Image.new("RGB", (max(width, 420), _TOP + _ROW * len(rows) + _MARGIN), _WHITE)
    pencil = ImageDraw.Draw(picture)
    font, large = ImageFont.load_default(size=15), ImageFont.load_default(size=18)
    pencil.text((_MARGIN, 16), title, font=large, fill=_INK)
    for j, name in enumerate(columns):
        pencil.text((_LEFT + (j + 0.5) * _CELL, _TOP - 16), name, font=font, fill=_INK, anchor="mm")
    for i, name in enumerate(rows):
        y = _TOP + i * _ROW
        pencil.text((_LEFT - 12, y + _ROW / 2), name, font=font, fill=_INK, anchor="rm")
        for j, value in enumerate(values[i]):
            x = _LEFT + j * _CELL
            share = (value - low) / (high - low) if high > low else 0.5
            pencil.rectangle((x, y, x + _CELL - 2, y + _ROW - 2), fill=_mix(share))
            if value == high:
                pencil.rectangle((x, y, x + _CELL - 2, y + _ROW - 2), outline=(214, 58, 84), width=3)
            ink = _WHITE if share > 0.5 else _INK
            pencil.text((x + _CELL / 2, y + _ROW / 2), f"{100 * value:.1f}", font=font, fill=ink, anchor="mm")
    return picture


def write_heatmap(path: Path, picture: Image.Image) -> None:
    """Write a heat map as a PNG.

    Raises:
        UsageError: another suffix.
        DiffSimError: the file can't be written.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path.name}: a heat map's name must end in .png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, "PNG")
    except OSError as error:
        raise DiffSimError(f"{path} can't be written: {error.strerror or error}") from error


def _mix(share: float) -> tuple[int, int, int]:
    r, g, b = (round(pale + (dark - pale) * share) for pale, dark in zip(_PALE, _DARK, strict=True))
    return r, g, b
