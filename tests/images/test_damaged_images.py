"""Whatever the bytes are, decoding gives an image or an error with its reason, within the limit of pixels."""

import contextlib
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images.decoding import DecodeRules, decode_bytes, read_image
from tests.slices import examples
from tests.support.encoded_images import FORMATS, RULES, SAMPLES, encode, noise, pixels, reason


def test_an_empty_file_has_its_reason() -> None:
    assert reason(b"") == "empty"


@pytest.mark.parametrize(
    "data",
    [
        *(b"\0", b"hello, world", b"BM is how this text begins, and it goes on", b"\xff\xd8"),
        *(b"RIFF\0\0\0\0ACONLIST", b"\0\0\0\x18ftypwhat", b"\x28\0\0\0" * 4),
    ],
)
def test_other_bytes_are_not_an_image(data: bytes) -> None:
    assert reason(data) == "not_an_image"


@pytest.mark.parametrize("kind", ["PPM", "ICO", "JPEG2000", "PDF", "DDS", "EPS"])
def test_a_format_outside_the_list_is_named_and_not_opened(kind: str) -> None:
    assert reason(encode(noise(16, 16), kind)) == "unsupported"


def test_heic_without_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"is a HEIC image, which needs the Python package pillow-heif") as caught:
        decode_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "x", RULES)
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("kind", ["JPEG", "JPEG progressive"])
def test_a_jpeg_is_used_from_half_of_its_rows_on(kind: str) -> None:
    data = encode(noise(90, 70), "JPEG", progressive=kind != "JPEG")
    assert reason(data[:400]) == "truncated"
    whole, cut = pixels(data), pixels(data[: int(len(data) * 0.9)])
    rows = 48 if kind == "JPEG" else 0
    assert np.array_equal(whole[:rows], cut[:rows])
    assert np.abs(whole.astype(int) - cut).mean() < 24
    assert np.array_equal(pixels(data[:-2]), whole)


def test_the_facts_of_a_cut_jpeg_say_what_was_used(tmp_path: Path) -> None:
    data, path = encode(noise(90, 70), "JPEG"), tmp_path / "cut.jpg"
    path.write_bytes(data[: int(len(data) * 0.9)])
    assert re.fullmatch(
        r"ends early: the upper \d\d % of it were used, and the rest is grey", read_image(path, RULES)[1].partial
    )
    path.write_bytes(data[:-2])
    assert read_image(path, RULES)[1].partial == ""
    path.write_bytes(encode(noise(90, 70), "JPEG", progressive=True)[:-40])
    assert read_image(path, RULES)[1].partial == "ends early: it was used with the detail that it has"


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize(
    "kind",
    ["PNG", "WEBP", "WEBP lossless", "GIF", "TIFF", "BMP"],
)
def test_a_truncated_file_has_its_reason(kind: str, share: float) -> None:
    data = encode(noise(90, 70), kind) if kind in FORMATS else SAMPLES[kind]
    assert reason(data[: max(32, int(len(data) * share))]) == "truncated"


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["TIFF lzw", "AVIF"])
def test_some_readers_can_not_tell_a_cut_file_from_a_damaged_one(kind: str, share: float) -> None:
    data = encode(noise(90, 70), kind) if kind in FORMATS else SAMPLES[kind]
    assert reason(data[: max(32, int(len(data) * share))]) in ("truncated", "unreadable")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF lzw"])
def test_a_damaged_file_of_full_length_is_unreadable(kind: str) -> None:
    data = bytearray(SAMPLES[kind])
    start, length = {
        "PNG": (len(data) // 2, 8),
        "WEBP": (20, 6),  # the start of the frame
        "AVIF": (data.find(b"hdlr"), 4),
        "TIFF lzw": (8, len(data) - 208),
    }[kind]
    data[start : start + length] = b"\xff" * length
    assert reason(bytes(data)) == "unreadable"


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def test_the_header_alone_says_that_an_image_is_too_large() -> None:
    idat = b"\0\0\0\0IDAT" + struct.pack(">I", 0x35AF061E)
    with pytest.raises(ImageError, match=r"is 30000 x 20000 px, above the limit of 268435456 px") as caught:
        decode_bytes(png_header(30000, 20000) + idat, "x", RULES)
    assert caught.value.reason == "too_large"
    vp8x = struct.pack("<I", 0) + (16383).to_bytes(3, "little") * 2
    riff = b"WEBPVP8X" + struct.pack("<I", 10) + vp8x
    assert reason(b"RIFF" + struct.pack("<I", len(riff)) + riff) == "too_large"


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_the_limit_on_pixels_is_exact(kind: str) -> None:
    decode_bytes(SAMPLES[kind], "x", DecodeRules(max_pixels=960))
    assert reason(SAMPLES[kind], DecodeRules(max_pixels=959)) == "too_large"


def test_a_draft_counts_as_it_is_decoded() -> None:
    data = encode(noise(800, 600), "JPEG")
    image, size = decode_bytes(data, "x", DecodeRules(draft=30, max_pixels=7500))
    assert (image.size, size) == ((100, 75), (800, 600))
    assert reason(data, DecodeRules(draft=30, max_pixels=7499)) == "too_large"
    assert reason(data, DecodeRules(max_pixels=479_999)) == "too_large"


def test_pillows_own_limit_does_not_interfere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    for kind in ("PNG", "JPEG", "GIF", "BMP"):
        assert pixels(SAMPLES[kind]).shape == (24, 40, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # these two readers look at it themselves
    assert reason(SAMPLES["WEBP"]) == "too_large"


def attempt(data: bytes) -> None:
    with contextlib.suppress(ImageError):
        image, size = decode_bytes(data, "x", DecodeRules(max_pixels=100_000))
        assert image.mode == "RGB"
        assert image.size == size


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=examples(150), deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", *sorted({data[:30] for data in SAMPLES.values()})]))
def test_any_bytes_give_an_image_or_an_image_error(data: bytes, start: bytes) -> None:
    attempt(start + data)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=examples(400), deadline=None)
@given(
    st.sampled_from(sorted(SAMPLES)),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=6),
)
def test_any_damage_gives_an_image_or_an_image_error(
    kind: str, cut: float, anywhere: list[tuple[float, int]], early: list[tuple[int, int]]
) -> None:
    data = bytearray(SAMPLES[kind])
    for at, value in anywhere:
        data[int(at * (len(data) - 1))] = value
    for place, value in early:
        data[place] = value
    attempt(bytes(data[: int(len(data) * cut)]) if cut < 0.5 else bytes(data))


def test_libtiff_prints_nothing_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(encode(noise(90, 70), "TIFF", compression="tiff_lzw"))
    data[100:9000] = b"\xff" * 8900
    with pytest.raises(ImageError, match=r"can't be decoded as TIFF: its image data is damaged"):
        decode_bytes(bytes(data), "x", RULES)
    assert capfd.readouterr() == ("", "")
