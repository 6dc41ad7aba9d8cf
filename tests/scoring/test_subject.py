"""The subject of a picture: a square of tokens that is like itself and unlike the rest."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.scoring.subject import MOST_CELLS, subject_box


def scene(rows: int, columns: int, box: tuple[int, int, int, int], seed: int) -> torch.Tensor:
    """Tokens of a background with noise, and of a subject with noise at (top, left, height, width)."""
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, 24, generator=random)
    found = tokens[0] + 0.3 * torch.randn(rows, columns, 24, generator=random)
    top, left, height, width = box
    found[top : top + height, left : left + width] += 2 * (tokens[1] - tokens[0])
    return found


@given(st.data(), st.integers(5, 12), st.integers(0, 1000), st.sampled_from([0.5, 1.0, 300.0]))
@settings(max_examples=30, deadline=None)
def test_a_square_of_other_tokens_is_found(data: st.DataObject, side: int, seed: int, scale: float) -> None:
    size = data.draw(st.integers(max(2, round(side / 4)), side // 2))
    top, left = (data.draw(st.integers(0, side - size)) for _ in range(2))
    tokens = scene(side, side, (top, left, size, size), seed)
    expected = (left / side, top / side, size / side, size / side)
    assert subject_box(tokens * scale) == pytest.approx(expected)
    turned = subject_box(tokens.transpose(0, 1))
    assert turned == pytest.approx((expected[1], expected[0], *expected[2:]))


def test_large_grids_are_averaged() -> None:
    found = subject_box(scene(2 * MOST_CELLS, 2 * MOST_CELLS, (4, 12, 10, 10), 0))
    assert found == pytest.approx((12 / 28, 4 / 28, 10 / 28, 10 / 28))


def test_a_grid_that_is_no_square_gives_windows_of_its_proportions() -> None:
    x, y, width, height = subject_box(scene(6, 12, (1, 6, 3, 6), 1)) or (0, 0, 0, 0)
    assert (x, y, width, height) == pytest.approx((0.5, 1 / 6, 0.5, 0.5))


@pytest.mark.parametrize("tokens", [torch.ones(7, 7, 5), torch.zeros(7, 7, 5), torch.randn(2, 9, 5)])
def test_pictures_of_one_part_have_no_subject(tokens: torch.Tensor) -> None:
    assert subject_box(tokens) is None
