"""A picture is found again in its turned, cut, framed and enlarged copies, and not in another one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from retrieval.grouping.agreement import agree
from retrieval.grouping.alignment import SYMMETRIES, Alignment, align, turn
from retrieval.grouping.comparing import compare
from retrieval.grouping.pictures import small
from retrieval.grouping.quality import sharpness
from retrieval.sample_images.pictures import MOTIFS, STYLES, draw


def drawn(number: int, side: int = 240) -> Image.Image:
    return Image.fromarray(draw(STYLES[number], MOTIFS[number], size=side)).crop((0, 0, side, side * 3 // 4))


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return drawn(0)


@pytest.mark.parametrize("symmetry", range(8))
def test_turned_pictures_are_told_by_their_symmetry(picture: Image.Image, symmetry: int) -> None:
    # The picture that turn() with this number makes upright.
    pixels = np.asarray(picture)
    changed = np.rot90(pixels[:, ::-1] if symmetry >= 4 else pixels, -(symmetry % 4))
    verdict = compare(small(picture), small(Image.fromarray(np.ascontiguousarray(changed))))
    assert (verdict.symmetry, verdict.agreement.extent) == (symmetry, "equal")
    assert verdict.share > 0.95
    assert verdict.changes(small(picture), small(picture)) == ((SYMMETRIES[symmetry],) if symmetry else ())


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.floats(0.75, 0.9), st.floats(0, 1), st.floats(0, 1))
def test_a_cut_lies_where_it_was_cut(share: float, across: float, down: float) -> None:
    picture = drawn(1)
    width, height = round(share * picture.width), round(share * picture.height)
    x, y = round(across * (picture.width - width)), round(down * (picture.height - height))
    cut = small(picture.crop((x, y, x + width, y + height)))
    found = compare(small(picture), cut)
    assert found.is_copy(0.65)
    assert found.agreement.extent == "inside"
    assert found.agreement.covers == pytest.approx(width * height / (picture.width * picture.height), abs=0.05)
    other = compare(cut, small(picture))
    assert other.agreement.extent == "around"
    assert other.shows_more


def test_a_border_is_a_border_from_both_sides(picture: Image.Image) -> None:
    framed = small(ImageOps.expand(picture, 20, (40, 70, 140)))
    outwards, inwards = compare(small(picture), framed), compare(framed, small(picture))
    assert (outwards.agreement.extent, outwards.agreement.border, outwards.shows_more) == ("around", True, False)
    assert (inwards.agreement.extent, inwards.agreement.border, inwards.shows_more) == ("inside", True, True)


def test_other_pictures_and_flat_ones_are_no_copies(picture: Image.Image) -> None:
    flat = small(Image.new("RGB", (200, 150), (90, 120, 30)))
    assert compare(small(picture), small(drawn(2))).share < 0.5
    assert compare(small(picture), flat).share == 0
    assert compare(flat, flat).share == 0


def test_two_cuts_that_only_overlap_are_no_copies(picture: Image.Image) -> None:
    left, right = small(picture.crop((0, 0, 190, 180))), small(picture.crop((50, 0, 240, 180)))
    assert agree(left.grey, right.grey, align(left.grey, right.grey)).extent == "overlapping"
    assert compare(left, right).share < 0.5


def test_a_small_cut_must_agree_nearly_everywhere(picture: Image.Image) -> None:
    verdict = compare(small(picture), small(picture))
    small_cut, half = (replace(verdict.agreement, share=0.8, covers=covers) for covers in (0.37, 0.64))
    assert not replace(verdict, agreement=small_cut).is_copy(0.65)
    assert replace(verdict, agreement=half).is_copy(0.65)
    assert not replace(verdict, agreement=half).is_copy(0.85)


def test_grey_and_light_are_named(picture: Image.Image) -> None:
    grey = small(picture.convert("L").convert("RGB"))
    assert compare(small(picture), grey).changes(small(picture), grey) == ("grey",)
    dark = small(picture.point(lambda value: value * 0.7))
    assert "other light" in compare(small(picture), dark).changes(small(picture), dark)


def test_an_inverse_leads_back() -> None:
    there = Alignment(1.0, 1.3, -7.0, 12.0)
    back = there.inverse().inverse()
    assert (back.scale, back.x, back.y) == pytest.approx((1.3, -7.0, 12.0))


def test_a_picture_lies_on_itself(picture: Image.Image) -> None:
    grey = small(picture).grey
    found = align(grey, grey)
    assert (found.scale, found.x, found.y) == pytest.approx((1, 0, 0), abs=0.02)
    assert agree(grey, grey, found).share > 0.99
    assert np.array_equal(turn(turn(grey, 1), 3), grey)


def test_an_enlarged_picture_is_less_sharp(picture: Image.Image) -> None:
    enlarged = picture.resize((3 * picture.width, 3 * picture.height), Image.Resampling.BICUBIC)
    assert sharpness(enlarged) < 0.75 * sharpness(picture)
    assert sharpness(Image.new("RGB", (50, 50))) == 1.0
