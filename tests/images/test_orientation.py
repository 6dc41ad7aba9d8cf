"""The EXIF orientation is applied, the first frame is taken, and JPEG drafts keep enough pixels; the rules say so."""

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from retrieval.errors import UsageError
from retrieval.images.decoding import DecodeRules, decode_bytes, to_rgb
from retrieval.images.preprocessing import resize_square
from retrieval.images.probe import pixel_probe
from tests.support.encoded_images import RULES, STORED_AS, encode, noise, pixels, smooth, turned


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int, kind: str) -> None:
    upright = noise(9, 5)
    step = STORED_AS[orientation]
    stored = upright if step is None else upright.transpose(step)
    options: dict[str, object] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image, size = decode_bytes(encode(stored, kind, exif=turned(orientation), **options), "x", RULES)
    assert size == image.size == (9, 5)
    assert np.array_equal(np.asarray(image), np.asarray(upright))
    assert np.array_equal(np.asarray(to_rgb(image, "white")), np.asarray(upright)), "turned twice"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_jpeg_and_16_bit_grey_is_that_of_pillow(orientation: int) -> None:
    data = encode(smooth(31, 17), "JPEG", exif=turned(orientation))
    with Image.open(io.BytesIO(data)) as opened:
        assert np.array_equal(pixels(data), np.asarray(ImageOps.exif_transpose(opened).convert("RGB")))
    ramp = np.arange(6, dtype=np.uint16).reshape(2, 3) * 2570
    got = pixels(encode(Image.fromarray(ramp), "PNG", exif=turned(orientation)))
    assert got.shape[:2] == ((3, 2) if orientation > 4 else (2, 3))


def test_avif_is_turned() -> None:
    upright = smooth(40, 24)
    data = encode(upright.transpose(Image.Transpose.ROTATE_90), "AVIF", exif=turned(6))
    image, size = decode_bytes(data, "x", RULES)
    assert size == image.size == (40, 24)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(upright)).mean() < 6


@pytest.mark.filterwarnings("ignore")  # Pillow warns of such metadata
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08"])
def test_broken_exif_does_not_reject_the_pixels(exif: bytes) -> None:
    plain = encode(smooth(20, 10), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    assert np.array_equal(pixels(plain[:2] + segment + plain[2:]), pixels(plain))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_changes_nothing(orientation: int) -> None:
    assert pixels(encode(noise(4, 3), "PNG", exif=turned(orientation))).shape == (3, 4, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_frame_is_taken(kind: str) -> None:
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("#f00", "#00f"))
    data = encode(red, kind, save_all=True, append_images=[blue])
    assert np.abs(pixels(data).astype(int) - [255, 0, 0]).max() < 12


def test_an_mpo_file_gives_its_first_picture_as_a_draft_too() -> None:
    first, second = smooth(400, 300), Image.new("RGB", (400, 300))
    data = encode(first, "MPO", save_all=True, append_images=[second])
    image, size = decode_bytes(data, "x", DecodeRules(draft=30))
    assert (image.size, size) == ((100, 75), (400, 300))
    assert np.asarray(image).mean() > 20


def test_a_draft_is_smaller_and_looks_the_same() -> None:
    full = smooth(1600, 1200)
    data = encode(full, "JPEG", quality=90, exif=turned(6))
    rules = DecodeRules(draft=70)
    draft, size = decode_bytes(data, "x", rules)
    assert size == (1200, 1600)
    assert draft.size == (150, 200)
    whole, size = decode_bytes(data, "x", RULES)
    assert size == whole.size == (1200, 1600)
    difference = resize_square(draft, 64).astype(int) - resize_square(whole, 64)
    assert np.abs(difference).mean() < 1.5


@pytest.mark.parametrize(("draft", "width"), [(1, 50), (25, 50), (26, 100), (100, 200), (101, 400), (500, 400)])
def test_a_draft_keeps_twice_the_size_on_the_short_side(draft: int, width: int) -> None:
    data = encode(smooth(400, 420), "JPEG")
    image, size = decode_bytes(data, "x", DecodeRules(draft=draft))
    assert size == (400, 420)
    assert image.width == width


def test_only_jpeg_has_drafts() -> None:
    assert pixels(encode(noise(64, 64), "PNG"), DecodeRules(draft=4)).shape == (64, 64, 3)


def test_the_fingerprint_is_json_without_the_limit_on_pixels() -> None:
    plain = {"decoder": "pillow", "alpha": "white", "draft": None, "colour": "srgb", "probe": pixel_probe()}
    assert DecodeRules().fingerprint() == plain
    assert DecodeRules(max_pixels=5).fingerprint() == DecodeRules().fingerprint()
    changed = {"alpha": "drop", "draft": 512}
    assert json.loads(json.dumps(DecodeRules("drop", 512).fingerprint())) == {**plain, **changed}
    del plain["colour"]
    assert DecodeRules(colour="ignored").fingerprint() == plain


@pytest.mark.parametrize("bad", [{"alpha": "black"}, {"colour": "p3"}, {"draft": 0}, {"max_pixels": 0}])
def test_rules_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        DecodeRules(**bad)  # type: ignore[arg-type]
