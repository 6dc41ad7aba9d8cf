"""Displays of the notebooks: pictures as small JPEGs, tables, bars."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from IPython.display import Image as Displayed
from IPython.display import Markdown
from PIL import Image, ImageDraw, ImageFont

BUILD = Path(__file__).parents[1] / "build" / "notebooks"
INK, GREY, ACCENT, BLUE = (26, 29, 38), (118, 123, 137), (214, 58, 84), (24, 78, 119)


def picture(image: Image.Image | Path, width: int = 1000) -> Displayed:
    """Return an image or an image file, at most ``width`` pixels wide."""
    image = Image.open(image).convert("RGB") if isinstance(image, Path) else image
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return Displayed(buffer.getvalue(), format="jpeg")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Markdown:
    """Return a table with numbers aligned to the right."""
    numbers = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join("---:" if n else "---" for n in numbers) + "|"]
    lines += ["| " + " | ".join(f"{v:,.3g}" if isinstance(v, float) else str(v) for v in row) + " |" for row in rows]
    return Markdown("\n".join(lines))


def bars(values: dict[str, float], title: str, unit: str) -> Displayed:
    """Return horizontal bars; their lengths follow the logarithms of the values."""
    font, large = ImageFont.load_default(size=15), ImageFont.load_default(size=18)
    left, room, row = 250, 560, 34
    sheet = Image.new("RGB", (left + room + 190, 70 + row * len(values)), "white")
    pencil = ImageDraw.Draw(sheet)
    pencil.text((20, 16), title, font=large, fill=INK)
    low, high = min(values.values()) / 2, max(values.values())
    for number, (name, value) in enumerate(values.items()):
        y = 56 + row * number
        length = room * np.log(value / low) / np.log(high / low)
        pencil.text((left - 12, y + row / 2 - 3), name, font=font, fill=INK, anchor="rm")
        pencil.rounded_rectangle((left, y, left + length, y + row - 10), 4, fill=BLUE)
        pencil.text(
            (left + length + 10, y + row / 2 - 3),
            f"{f'{value:,.0f}' if value >= 100 else f'{value:.3g}'} {unit}",
            font=font,
            fill=GREY,
            anchor="lm",
        )
    return picture(sheet)


def lookups(a: Image.Image, b: Image.Image, rows: Sequence[tuple[int, np.ndarray]], side: int = 240) -> Displayed:
    """Return one pair of pictures per row: ``a`` with a cell framed, and ``b`` lit by that cell's attention weights."""
    grid = round(len(rows[0][1]) ** 0.5)
    cell, gap = side / grid, 16
    sheet = Image.new("RGB", (len(rows) * (2 * side + 3 * gap), side + 2 * gap), "white")
    for number, (place, weights) in enumerate(rows):
        x = gap + number * (2 * side + 3 * gap)
        sheet.paste(a.resize((side, side)), (x, gap))
        top, left = gap + place // grid * cell, x + place % grid * cell
        ImageDraw.Draw(sheet).rectangle((left, top, left + cell, top + cell), outline=ACCENT, width=5)
        light = Image.fromarray(np.uint8(255 * weights.reshape(grid, grid) / weights.max()))
        light = light.resize((side, side), Image.Resampling.BICUBIC).point(lambda level: 40 + level * 215 // 255)
        sheet.paste(
            Image.composite(b.resize((side, side)), Image.new("RGB", (side, side), "black"), light),
            (x + side + gap, gap),
        )
    return picture(sheet)
