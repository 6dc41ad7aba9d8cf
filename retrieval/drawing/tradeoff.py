"""Draw quality against cost with Pillow: one panel for each question, cost on a logarithmic axis."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw

from retrieval.drawing.fonts import drawable, own_font
from retrieval.errors import UsageError
from retrieval.files import check_writable, write_bytes

_WIDTH, _HEIGHT = 460, 380  # px of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 62, 58  # px between a panel's edge and its axes
_HEAD = 44  # px above the panels
_INK, _GRID, _FRONT, _WHITE = (26, 29, 38), (226, 226, 230), (150, 150, 160), (255, 255, 255)
_COLOURS = ((24, 78, 119), (214, 58, 84), (42, 140, 95), (226, 138, 28), (118, 76, 159), (96, 108, 118))
_DOT = 6  # px, the radius of a mark


@dataclass(frozen=True)
class TradeOff:
    """One mark: a quality with its interval, its cost, and the quality of a simpler variant."""

    name: str
    cost: float  # above 0
    quality: float
    low: float | None
    high: float | None
    simpler: float
    on_front: bool


@dataclass(frozen=True)
class TradeOffPanel:
    """The marks of one question."""

    title: str
    marks: Sequence[TradeOff]


@dataclass(frozen=True)
class _Axes:
    """The scales of one panel: cost to x by its logarithm, quality to y, in px of the whole picture."""

    left: float
    top: float
    costs: tuple[float, float]
    qualities: tuple[float, float]

    @property
    def width(self) -> float:
        return _WIDTH - _LEFT - _RIGHT

    @property
    def height(self) -> float:
        return _HEIGHT - _TOP - _BOTTOM

    def x(self, cost: float) -> float:
        low, high = map(math.log10, self.costs)
        return self.left + self.width * (math.log10(cost) - low) / (high - low)

    def y(self, quality: float) -> float:
        low, high = self.qualities
        return self.top + self.height * (high - quality) / (high - low)


def draw_tradeoffs(
    panels: Sequence[TradeOffPanel], title: str, cost: str, quality: str, columns: int = 3
) -> Image.Image:
    """Return an RGB picture with a panel for each question.

    A dot is a model with its interval, a ring the simpler variant, a grey line the Pareto front.

    Args:
        panels: one or more, each with one mark or more.
        title: above all panels.
        cost: the name of the horizontal axis, with its unit.
        quality: the name of the vertical axis.
        columns: panels side by side.
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    size = columns * _WIDTH, _HEAD + rows * _HEIGHT
    head, words = drawable(title, own_font(18))
    picture = Image.new("RGB", (max(size[0], round(words.getlength(head)) + 40), size[1]), _WHITE)
    pencil = ImageDraw.Draw(picture)
    pencil.text((20, 16), head, font=words, fill=_INK)
    names = list(dict.fromkeys(mark.name for panel in panels for mark in panel.marks))
    for number, panel in enumerate(panels):
        at = number % columns * _WIDTH, _HEAD + number // columns * _HEIGHT
        _draw_panel(pencil, panel, _axes(panel.marks, at), names, (cost, quality))
    return picture


def write_tradeoffs(path: Path, picture: Image.Image) -> None:
    """Write the picture as a PNG; an older file is replaced only by a complete new one.

    Raises:
        UsageError: another suffix.
        DiffSimError: the file can't be written.
    """
    check_tradeoffs(path)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def check_tradeoffs(path: Path) -> None:
    """Raise the errors of :func:`write_tradeoffs` before the work that measures."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path.name}: the picture's name must end in .png")
    check_writable(path)


def _axes(marks: Sequence[TradeOff], at: tuple[int, int]) -> _Axes:
    costs = [mark.cost for mark in marks]
    qualities = [q for m in marks for q in (m.quality, m.low, m.high, m.simpler) if q is not None]
    spare = 0.1 * max(max(qualities) - min(qualities), 0.02)
    return _Axes(
        at[0] + _LEFT,
        at[1] + _TOP,
        (min(costs) / 1.6, max(costs) * 1.6),
        (min(qualities) - spare, max(qualities) + spare),
    )


def cost_ticks(low: float, high: float) -> list[float]:
    """Return the numbers 1, 2 and 5 times a power of ten from ``low`` to ``high``; powers alone over a wide range."""
    digits = (1, 2, 5) if high / low < 200 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for power in powers for digit in digits if low <= (tick := digit * 10.0**power) <= high]


def quality_ticks(low: float, high: float) -> list[float]:
    """Return three to seven round numbers from ``low`` to ``high``."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _short(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _draw_panel(
    pencil: ImageDraw.ImageDraw, panel: TradeOffPanel, axes: _Axes, names: Sequence[str], labels: tuple[str, str]
) -> None:
    _draw_grid(pencil, axes, labels)
    pencil.text((axes.left - 40, axes.top - 46), panel.title, font=own_font(16), fill=_INK)
    front = sorted((mark.cost, mark.quality) for mark in panel.marks if mark.on_front)
    for (cost, quality), (more, higher) in pairwise(front):
        corner = (axes.x(more), axes.y(quality))
        pencil.line(((axes.x(cost), axes.y(quality)), corner, (corner[0], axes.y(higher))), fill=_FRONT, width=2)
    for mark in panel.marks:
        _draw_mark(pencil, mark, axes, _COLOURS[names.index(mark.name) % len(_COLOURS)])


def _draw_grid(pencil: ImageDraw.ImageDraw, axes: _Axes, labels: tuple[str, str]) -> None:
    small, right, bottom = own_font(13), axes.left + axes.width, axes.top + axes.height
    for tick in quality_ticks(*axes.qualities):
        y = axes.y(tick)
        pencil.line((axes.left, y, right, y), fill=_GRID)
        pencil.text((axes.left - 8, y), f"{100 * tick:g}", font=small, fill=_INK, anchor="rm")
    for tick in cost_ticks(*axes.costs):
        x = axes.x(tick)
        pencil.line((x, axes.top, x, bottom), fill=_GRID)
        pencil.text((x, bottom + 8), _short(tick), font=small, fill=_INK, anchor="mt")
    pencil.rectangle((axes.left, axes.top, right, bottom), outline=_INK)
    pencil.text((axes.left + axes.width / 2, bottom + 38), labels[0], font=small, fill=_INK, anchor="mm")
    pencil.text((axes.left - 40, axes.top - 14), labels[1], font=small, fill=_INK, anchor="lm")


def _draw_mark(pencil: ImageDraw.ImageDraw, mark: TradeOff, axes: _Axes, colour: tuple[int, int, int]) -> None:
    x, y, below = axes.x(mark.cost), axes.y(mark.quality), axes.y(mark.simpler)
    if mark.low is not None and mark.high is not None:
        pencil.line((x, axes.y(mark.low), x, axes.y(mark.high)), fill=colour, width=2)
    pencil.ellipse((x - _DOT, below - _DOT, x + _DOT, below + _DOT), outline=colour, fill=_WHITE, width=2)
    pencil.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), fill=colour)
    text, font = drawable(mark.name, own_font(14))
    is_right = x > axes.left + axes.width / 2
    place = (x - _DOT - 5, y) if is_right else (x + _DOT + 5, y)
    anchor = "rm" if is_right else "lm"
    pencil.text(place, text, font=font, fill=colour, anchor=anchor, stroke_width=3, stroke_fill=_WHITE)
