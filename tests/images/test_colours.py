"""Every colour mode becomes RGB as stated: profiles are applied once, and transparency lies on white or is dropped."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from retrieval.images import decoding as images
from retrieval.images import pixels as converting
from retrieval.images.decoding import DecodeRules, decode_bytes, to_rgb
from tests.images.odd.picture import SPACES
from tests.images.odd.profiles import rgb_profile
from tests.support.encoded_images import SAMPLES, encode, noise, pixels, smooth


@pytest.mark.parametrize("kind", ["PNG", "BMP", "DIB", "TIFF"])
def test_rgb_is_kept_exactly(kind: str) -> None:
    image = noise(13, 7)
    assert np.array_equal(pixels(encode(image, kind)), np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "GIF", "MPO"])
def test_lossy_formats_come_close(kind: str) -> None:
    difference = pixels(SAMPLES[kind]).astype(int) - np.asarray(smooth(40, 24))
    assert np.abs(difference).mean() < 12


def test_grey_and_bilevel_images_become_rgb() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(pixels(encode(Image.fromarray(grey), "PNG")), np.stack([grey] * 3, axis=2))
    bits = Image.fromarray(np.eye(9, dtype=bool))
    assert np.array_equal(pixels(encode(bits, "PNG"))[..., 1], np.eye(9, dtype=np.uint8) * 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    got = pixels(encode(Image.fromarray(ramp), kind))
    assert np.array_equal(got, np.stack([np.rint(ramp / 257.0)] * 3, axis=2))


def test_16_bit_modes_of_either_byte_order_agree() -> None:
    ramp = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    for mode, stored in (("I;16", "<u2"), ("I;16B", ">u2"), ("I;16L", "<u2")):
        image = Image.frombytes(mode, (16, 16), ramp.astype(stored).tobytes())
        assert np.array_equal(np.asarray(to_rgb(image, "white"))[..., 0].ravel(), np.arange(256)), mode
    big_endian = encode(Image.frombytes("I;16B", (16, 16), ramp.astype(">u2").tobytes()), "TIFF")
    assert np.array_equal(pixels(big_endian)[..., 2].ravel(), np.arange(256))


def test_mode_i_is_clipped_to_16_bit() -> None:
    image = Image.fromarray(np.array([[-5, 0, 128, 129, 65535, 70000]], dtype=np.int32))
    assert np.asarray(to_rgb(image, "white"))[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.25, 1.0, -3.0, np.nan], [0, 64, 255, 0, 0]),
        ([0.0, 0.6, 254.4, 300.0, np.nan], [0, 1, 254, 255, 0]),
        ([np.inf, -np.inf, 0.5, 1.0, -3e38], [255, 0, 128, 255, 0]),
        ([0.0, 0.5, 1.0, 1.5, 1.9], [0, 128, 255, 255, 255]),
        ([0.0, 257.0, 25700.0, 65535.0, np.nan], [0, 1, 100, 255, 0]),
        ([0.0, 1e6, 2e6, 2e6, 2e6], [0, 128, 255, 255, 255]),
        ([np.nan] * 5, [0] * 5),
    ],
)
def test_floating_point_images_are_scaled_to_8_bit(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert np.asarray(to_rgb(image, "white"))[0, :, 1].tolist() == expected
    assert pixels(encode(image, "TIFF"))[0, :, 1].tolist() == expected


def test_cmyk_is_converted_plainly() -> None:
    image = noise(8, 8).convert("CMYK")
    assert np.array_equal(pixels(encode(image, "TIFF")), np.asarray(image.convert("RGB")))
    jpeg = encode(image, "JPEG", quality=95)
    with Image.open(io.BytesIO(jpeg)) as opened:
        assert opened.mode == "CMYK"
        assert np.array_equal(pixels(jpeg), np.asarray(opened.convert("RGB")))


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB", "RGBX", "PA", "La", "RGBa", "LA", "1", "L", "P"])
@pytest.mark.parametrize("alpha", ["white", "drop"])
def test_every_mode_becomes_rgb(mode: str, alpha: images.AlphaRule) -> None:
    assert to_rgb(Image.new(mode, (3, 2)), alpha).mode == "RGB"


def test_one_bright_value_does_not_darken_a_floating_point_image() -> None:
    values = np.full((40, 40), 0.5, np.float32)
    values[3, 4] = 1000.0
    assert np.median(np.asarray(to_rgb(Image.fromarray(values), "white"))) == 128


def test_a_profile_is_applied_once_or_ignored_by_the_rule() -> None:
    image = smooth(40, 24)
    data = encode(image, "PNG", icc_profile=rgb_profile(SPACES[2]))
    assert np.array_equal(pixels(data, DecodeRules(colour="ignored")), np.asarray(image))
    converted, _ = decode_bytes(data, "x", DecodeRules())
    assert np.abs(np.asarray(converted).astype(int) - np.asarray(image)).mean() > 5
    assert converted.info == {}
    assert np.array_equal(np.asarray(to_rgb(converted, "white")), np.asarray(converted))


def test_an_image_object_is_converted_by_its_own_profile() -> None:
    image = smooth(40, 24)
    image.info["icc_profile"] = rgb_profile(SPACES[2])
    expected = pixels(encode(image, "PNG", icc_profile=image.info["icc_profile"]))
    assert np.array_equal(np.asarray(to_rgb(image, "white")), expected)
    assert "icc_profile" in image.info


def test_a_profile_that_means_srgb_leaves_every_value_as_it_is() -> None:
    image, made = noise(40, 24), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(pixels(encode(image, "PNG", icc_profile=made)), np.asarray(image))


def test_a_large_image_is_converted_band_after_band(monkeypatch: pytest.MonkeyPatch) -> None:
    clear = smooth(40, 24).convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.arange(40, dtype=np.uint8) * 6, (24, 1))))
    data = encode(clear, "PNG", icc_profile=rgb_profile(SPACES[0]))
    whole, grey = pixels(data), encode(Image.fromarray(np.arange(960, dtype=np.uint16).reshape(24, 40) * 68), "PNG")
    whole_grey = pixels(grey)
    monkeypatch.setattr(converting, "BAND_PIXELS", 200)
    assert np.array_equal(pixels(data), whole)
    assert np.array_equal(pixels(grey), whole_grey)


def rgba() -> Image.Image:
    array = np.zeros((1, 4, 4), dtype=np.uint8)
    array[0] = [[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128], [0, 0, 0, 51]]
    return Image.fromarray(array)


def over_white(array: np.ndarray) -> np.ndarray:
    share = array[..., 3:].astype(float) / 255
    return array[..., :3] * share + 255 * (1 - share)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_transparency_lies_on_white_or_is_dropped(kind: str) -> None:
    data = encode(rgba(), kind)
    assert np.abs(pixels(data) - over_white(np.asarray(rgba()))).max() <= 1
    assert pixels(data)[0, :2].tolist() == [[200, 100, 50], [255, 255, 255]]
    assert np.array_equal(pixels(data, DecodeRules(alpha="drop")), np.asarray(rgba())[..., :3])


def test_transparency_of_lossless_webp_lies_on_white() -> None:
    data = encode(rgba(), "WEBP", lossless=True, exact=True)
    assert pixels(data)[0, 1].tolist() == [255, 255, 255]
    assert pixels(data, DecodeRules(alpha="drop"))[0, 1].tolist() == [200, 100, 50]


def test_transparency_of_grey_images_lies_on_white() -> None:
    data = encode(Image.frombytes("LA", (2, 1), bytes([80, 255, 80, 0])), "PNG")
    assert pixels(data)[0].tolist() == [[80] * 3, [255] * 3]
    assert pixels(data, DecodeRules(alpha="drop"))[0].tolist() == [[80] * 3, [80] * 3]


def test_premultiplied_modes_lie_on_white() -> None:
    expected = np.asarray(to_rgb(rgba(), "white")).astype(int)
    assert np.abs(np.asarray(to_rgb(rgba().convert("RGBa"), "white")) - expected).max() <= 2
    grey = rgba().convert("LA")
    expected = np.asarray(to_rgb(grey, "white")).astype(int)
    assert np.abs(np.asarray(to_rgb(grey.convert("La"), "white")) - expected).max() <= 2


@pytest.mark.parametrize(("kind", "transparency"), [("PNG", 1), ("PNG", b"\xff\x00\xff"), ("GIF", 1)])
def test_transparency_of_a_palette_lies_on_white(kind: str, transparency: int | bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    data = encode(image, kind, transparency=transparency)
    assert pixels(data)[0].tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]
    dropped = pixels(data, DecodeRules(alpha="drop"))
    assert dropped[0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]


def test_a_transparent_colour_lies_on_white_without_an_alpha_channel() -> None:
    data = encode(Image.fromarray(np.array([[7, 8]], dtype=np.uint8)), "PNG", transparency=7)
    assert pixels(data)[0, :, 0].tolist() == [255, 8]
    assert pixels(data, DecodeRules(alpha="drop"))[0, :, 0].tolist() == [7, 8]
    data = encode(Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8)), "PNG", transparency=(1, 2, 3))
    assert pixels(data)[0].tolist() == [[255] * 3, [4, 5, 6]]
    wide = encode(Image.fromarray(np.array([[2570, 2571]], dtype=np.uint16)), "PNG", transparency=2570)
    assert pixels(wide)[0, :, 0].tolist() == [255, 10]
    assert pixels(wide, DecodeRules(alpha="drop"))[0, :, 0].tolist() == [10, 10]
