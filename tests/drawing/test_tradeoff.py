"""The picture of quality over cost: marks are where their numbers say, on every scale."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval.drawing.tradeoff import (
    TradeOff,
    TradeOffPanel,
    cost_ticks,
    draw_tradeoffs,
    quality_ticks,
    write_tradeoffs,
)
from retrieval.errors import UsageError
from tests.slices import examples

FIRST, SECOND, FRONT = (24, 78, 119), (214, 58, 84), (150, 150, 160)


def mark(name: str, cost: float, quality: float, on_front: bool = True, **others: float | None) -> TradeOff:
    values = {"low": quality - 0.1, "high": quality + 0.1, "simpler": quality - 0.05, **others}
    return TradeOff(name, cost, quality, on_front=on_front, **values)  # type: ignore[arg-type]


def draw(*panels: list[TradeOff]) -> Image.Image:
    named = [TradeOffPanel(f"panel {number}", marks) for number, marks in enumerate(panels)]
    return draw_tradeoffs(named, "title", "cost, ms", "quality, %")


def middle(picture: Image.Image, colour: tuple[int, int, int]) -> tuple[float, float]:
    rows, columns = np.nonzero((np.asarray(picture) == colour).all(axis=-1))
    assert len(rows), f"nothing has the colour {colour}"
    return float(np.median(columns)), float(np.median(rows))


@settings(max_examples=examples(20))
@given(st.floats(1e-3, 1e9), st.floats(1.5, 1e4))
def test_costs_that_differ_by_the_same_factor_are_equally_far_apart(cost: float, factor: float) -> None:
    marks = [mark(name, cost * factor**power, 0.5) for power, name in enumerate(("a", "b", "c"))]
    picture = draw(marks)
    third = (42, 140, 95)
    columns = [middle(picture, colour)[0] for colour in (FIRST, SECOND, third)]
    assert columns[0] < columns[1] < columns[2]


def test_better_is_higher_and_cheaper_is_left() -> None:
    picture = draw([mark("good", 100, 0.9), mark("cheap", 1, 0.2)])
    good, cheap = middle(picture, FIRST), middle(picture, SECOND)
    assert good[0] > cheap[0]
    assert good[1] < cheap[1]


def test_a_front_of_two_has_a_line_and_one_of_one_has_none() -> None:
    def has_line(picture: Image.Image) -> bool:
        return bool((np.asarray(picture) == FRONT).all(axis=-1).sum() > 20)

    assert has_line(draw([mark("a", 1, 0.4), mark("b", 100, 0.6)]))
    assert not has_line(draw([mark("a", 1, 0.6), mark("b", 100, 0.4, on_front=False)]))


def test_panels_stand_three_side_by_side() -> None:
    one, two, five = (draw(*[[mark("a", 1, 0.5)]] * count) for count in (1, 2, 5))
    assert two.width == 2 * one.width
    assert (five.width, five.height - 44) == (3 * one.width, 2 * (one.height - 44))


def test_marks_without_interval_and_of_one_value_can_be_drawn() -> None:
    same = [mark("a", 5, 1.0, low=None, high=None, simpler=1.0), mark("b", 5, 1.0, low=None, high=None, simpler=1.0)]
    assert draw(same).width > 0


@given(st.floats(1e-6, 1e9), st.floats(2.5, 1e6))
def test_cost_ticks_lie_inside_and_are_few(low: float, factor: float) -> None:
    ticks = cost_ticks(low, low * factor)
    assert 1 <= len(ticks) <= 9
    assert all(low <= tick <= low * factor for tick in ticks)
    assert ticks == sorted(set(ticks))


@given(st.floats(0, 0.9), st.floats(0.01, 1))
def test_quality_ticks_are_round_and_few(low: float, width: float) -> None:
    ticks = quality_ticks(low, low + width)
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-9 <= tick <= low + width + 1e-9 for tick in ticks)
    assert all(math.isclose(b - a, ticks[1] - ticks[0]) for a, b in pairwise(ticks))


def test_a_picture_is_a_png_that_can_be_opened(tmp_path: Path) -> None:
    write_tradeoffs(tmp_path / "new" / "p.png", draw([mark("a", 1, 0.5)]))
    with Image.open(tmp_path / "new" / "p.png") as picture:
        assert picture.format == "PNG"
    with pytest.raises(UsageError, match=r"must end in \.png"):
        write_tradeoffs(tmp_path / "p.jpg", draw([mark("a", 1, 0.5)]))
