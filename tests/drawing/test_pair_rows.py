"""Pairs of pictures with heat maps: colours follow the values, lines end in their cells, crops and gaps are drawn."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.drawing.pair_rows import ABOVE, BELOW, INK, MARGIN, SIDE, HeatedPicture, PairRow, colours, draw_pairs
from retrieval.drawing.sheet_file import check_picture, write_picture
from retrieval.errors import DiffSimError, UsageError
from retrieval.images.preprocessing import WHOLE, Region

GREY = Image.new("RGB", (60, 60), (128, 128, 128))
TOP = MARGIN + 2 * BELOW + ABOVE  # of the first row's pictures
MAPS = (MARGIN + SIDE + 18, MARGIN + 2 * SIDE + 18 + 96)  # the left edges of the heat maps


def heated(values: list[list[float]], region: Region = WHOLE, image: Image.Image | Path = GREY) -> HeatedPicture:
    return HeatedPicture(image, np.array(values, np.float32), region, "caption")


def drawn(*rows: PairRow) -> np.ndarray:
    return np.asarray(draw_pairs(rows, "values", "lines")).astype(int)


def middle(picture: np.ndarray, side: int, row: int, column: int, of: tuple[int, int]) -> np.ndarray:
    """The colour a little aside from the middle of a cell of the left (0) or right (1) map, where no line ends."""
    y, x = (SIDE * (at + 0.5) / count for at, count in zip((row, column), of, strict=True))
    return picture[TOP + round(y) - 30, MAPS[side] + round(x) - 30]


def lightness(colour: np.ndarray) -> float:
    return float(colour @ (0.2126, 0.7152, 0.0722))


def test_colours_rise_in_lightness_as_values_do() -> None:
    values = [lightness(colour.astype(float)) for colour in colours(np.linspace(0, 1, 50))]
    assert all(after > before for before, after in pairwise(values))
    assert colours(np.array([0.0, 1.0])).tolist() == [[68, 1, 84], [253, 231, 37]]


def test_one_scale_serves_all_maps_of_all_rows() -> None:
    low, high = heated([[0.0, 1.0], [2.0, 3.0]]), heated([[3.0, 3.0], [3.0, 4.0]])
    picture = drawn(PairRow("one", low, high, ()), PairRow("two", low, low, ()))
    order = [middle(picture, 0, row, column, (2, 2)) for row in (0, 1) for column in (0, 1)]
    order.append(middle(picture, 1, 1, 1, (2, 2)))
    values = [lightness(colour) for colour in order]
    assert values == sorted(values)
    assert len(set(values)) == 5
    np.testing.assert_array_equal(order[3], middle(picture, 1, 0, 0, (2, 2)))  # 3.0 on both sides


def test_lines_end_in_their_cells() -> None:
    pair = heated([[0.0, 1.0], [0.5, 0.2]]), heated([[0.1, 0.2, 0.3]])
    picture = drawn(PairRow("one", *pair, [((1, 0), (0, 2), 0.5), ((0, 1), (0, 0), 0.1)]))
    for left, x, y in ((MAPS[0], 0.25, 0.75), (MAPS[0], 0.75, 0.25), (MAPS[1], 5 / 6, 0.5), (MAPS[1], 1 / 6, 0.5)):
        assert abs(picture[TOP + round(y * SIDE), left + round(x * SIDE)] - INK).max() < 20
    without = drawn(PairRow("one", *pair, ()))
    changed = (picture != without).any(axis=2)
    assert changed[:TOP].sum() == 0
    assert 0 < changed.mean() < 0.1


@pytest.mark.parametrize(
    ("size", "region"), [((120, 60), (0.25, 0.0, 0.75, 1.0)), ((60, 60), WHOLE), ((60, 20), (0.0, -1.0, 1.0, 2.0))]
)
def test_cells_cover_the_region_that_the_model_sees(size: tuple[int, int], region: Region) -> None:
    """A crop leaves the sides pale; padding reaches beyond the picture and is cut."""
    image = Image.new("RGB", size, (128, 128, 128))
    yellow = heated([[1.0]], region, image)
    picture = drawn(PairRow("", heated([[0.0]]), yellow, [((0, 0), (0, 0), 1.0)]))
    there = picture[TOP : TOP + SIDE, MAPS[1] : MAPS[1] + SIDE]
    coloured = there[..., 0] - there[..., 2] > 100
    height, width = size[1] * SIDE // size[0], SIDE
    inside = min(region[2], 1) - max(region[0], 0), min(region[3], 1) - max(region[1], 0)
    assert coloured.sum() == pytest.approx(height * width * inside[0] * inside[1], rel=0.05)


def test_a_missing_picture_and_equal_or_negative_values_are_drawn(tmp_path: Path) -> None:
    missing = heated([[-0.5, -0.5]], image=tmp_path / "gone.png")
    picture = drawn(PairRow("日本\x1b" * 200, missing, missing, [((0, 0), (0, 1), 1e-9)]))
    assert picture.shape[0] == MARGIN + 3 * BELOW + ABOVE + SIDE + BELOW


def test_pictures_are_written_by_their_suffix(tmp_path: Path) -> None:
    for name in ("a.png", "deep/b.jpg", "c.webp"):
        write_picture(tmp_path / name, GREY)
        with Image.open(tmp_path / name) as image:
            assert image.size == GREY.size
    for name in ("a.html", "a.gif", "a"):
        with pytest.raises(UsageError, match=r"must end in one of \.png"):
            check_picture(tmp_path / name)
    with pytest.raises(DiffSimError, match="is not a folder"):
        check_picture(tmp_path / "a.png" / "b.png")
