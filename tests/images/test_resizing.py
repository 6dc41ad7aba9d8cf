"""Arrays as images, and how images are resized and cropped."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval.errors import UsageError
from retrieval.images.decoding import from_array
from retrieval.images.preprocessing import resize_and_crop, resize_square
from tests.slices import examples
from tests.support.encoded_images import noise


def test_an_array_becomes_an_image() -> None:
    array = np.asarray(noise(5, 4))
    image = from_array(array[:, ::-1], "query")
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), array[:, ::-1])


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\]"),
        (np.zeros((3, 4, 4), np.uint8), r"uint8 \[3, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
        (np.zeros((4, 4, 3), np.float32), r"float32 \[4, 4, 3\]"),
        ([[0]], "list"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, got: str) -> None:
    with pytest.raises(UsageError, match=f"query: .*not (a )?{got}"):
        from_array(array, "query")


def test_a_square_is_resized_by_lanczos_without_aspect_ratio() -> None:
    image = noise(30, 20)
    got = resize_square(image, 16)
    assert (got.dtype, got.shape, got.flags.writeable) == (np.uint8, (16, 16, 3), True)
    assert np.array_equal(got, np.asarray(image.resize((16, 16), Image.Resampling.LANCZOS)))


@pytest.mark.parametrize("resize", [lambda i: resize_square(i, 0), lambda i: resize_and_crop(i, 4, 0)])
def test_resizing_refuses_nonsense(resize: Callable[[Image.Image], object]) -> None:
    with pytest.raises(UsageError, match="0 px"):
        resize(noise(4, 4))
    with pytest.raises(UsageError, match="mode L"):
        resize(Image.new("L", (4, 4)))


def centre(array: np.ndarray, crop: int) -> np.ndarray:
    """The centre of an array padded far beyond any crop; floor division is transformers' rule."""
    padded = np.pad(array, ((crop, crop), (crop, crop), (0, 0)))
    top, left = ((length - crop) // 2 + crop for length in array.shape[:2])
    return padded[top : top + crop, left : left + crop]


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 40), st.integers(1, 60))
def test_resize_and_crop_follows_its_rule(width: int, height: int, shortest: int, crop: int) -> None:
    image = noise(width, height)
    scaled = int(shortest * max(width, height) / min(width, height))
    size = (shortest, scaled) if width <= height else (scaled, shortest)
    expected = centre(np.asarray(image.resize(size, Image.Resampling.BICUBIC)), crop)
    got = resize_and_crop(image, shortest, crop)
    assert (got.dtype, got.shape, got.flags.writeable) == (np.uint8, (crop, crop, 3), True)
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("size", [(7, 300), (300, 7)])
@pytest.mark.parametrize("crop", [20, 15, 31])
def test_a_strip_cut_first_is_the_same_picture(
    size: tuple[int, int], crop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = noise(*(2 if length == 7 else 12 for length in size)).resize(size, Image.Resampling.BICUBIC)
    expected = resize_and_crop(image, 20, crop).astype(int)
    monkeypatch.setattr("retrieval.images.preprocessing._MAX_RESIZED_PIXELS", 1)
    assert np.abs(resize_and_crop(image, 20, crop) - expected).max() <= 1


def test_a_long_strip_takes_little_memory() -> None:
    assert resize_and_crop(Image.new("RGB", (1, 50_000), "#123456"), 224, 224).tolist()[0][0] == [
        0x12,
        0x34,
        0x56,
    ]


@pytest.mark.slow
def test_resize_and_crop_is_that_of_transformers() -> None:
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    plain = {"do_rescale": False, "do_normalize": False}
    sizes = [(640, 427), (427, 640), (224, 224), (225, 1000), (100, 37), (1, 9), (333, 334)]
    for processor in (CLIPImageProcessorPil, BitImageProcessorPil):
        for shortest, crop in ((224, 224), (256, 224), (256, 225), (100, 131)):
            preprocess = processor(size={"shortest_edge": shortest}, crop_size={"height": crop, "width": crop}, **plain)
            for size in sizes:
                image = noise(*size)
                expected = preprocess(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
                assert np.array_equal(resize_and_crop(image, shortest, crop), expected), (size, shortest)
