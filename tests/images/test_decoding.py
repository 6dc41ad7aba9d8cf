import contextlib
import hashlib
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from retrieval.errors import ImageError, UsageError
from retrieval.images import decoding as images
from retrieval.images.decoding import DecodeRules, decode_bytes, from_array, read_image, to_rgb
from retrieval.images.preprocessing import resize_and_crop, resize_square

RULES = DecodeRules()
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "AVIF", "BMP", "DIB", "MPO")


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth(width: int, height: int) -> Image.Image:
    """A picture without fine detail, that lossy formats keep well."""
    return noise(6, 5).resize((width, height), Image.Resampling.BICUBIC)


def pixels(data: bytes, rules: DecodeRules = RULES) -> np.ndarray:
    image, _ = decode_bytes(data, "x", rules)
    assert image.mode == "RGB"
    return np.asarray(image)


def reason(data: bytes, rules: DecodeRules = RULES) -> str:
    with pytest.raises(ImageError) as caught:
        decode_bytes(data, "x", rules)
    assert caught.value.name == "x"
    assert caught.value.detail
    return caught.value.reason


def samples() -> dict[str, bytes]:
    image = smooth(40, 24)
    many = {"save_all": True, "append_images": [image.rotate(180)]}
    found = {kind: encode(image, kind, **(many if kind == "MPO" else {})) for kind in FORMATS}
    found["TIFF lzw"] = encode(image, "TIFF", compression="tiff_lzw")
    found["JPEG progressive"] = encode(image, "JPEG", progressive=True)
    found["WEBP lossless"] = encode(image, "WEBP", lossless=True)
    found["GIF frames"] = encode(image.convert("P"), "GIF", **many)
    found["PNG palette"] = encode(image.convert("P"), "PNG", transparency=3)
    found["PNG 16"] = encode(Image.fromarray(np.arange(960, dtype=np.uint16).reshape(24, 40)), "PNG")
    found["JPEG turned"] = encode(image, "JPEG", exif=turned(6))
    return found


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


SAMPLES = samples()


# --- colours --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "DIB", "TIFF"])
def test_rgb_is_kept_exactly(kind: str) -> None:
    image = noise(13, 7)
    assert np.array_equal(pixels(encode(image, kind)), np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "GIF", "MPO"])
def test_lossy_formats_come_close(kind: str) -> None:
    difference = pixels(SAMPLES[kind]).astype(int) - np.asarray(smooth(40, 24))
    assert np.abs(difference).mean() < 12


def test_grey_and_bilevel() -> None:
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
        ([np.inf, -np.inf, 0.5, 1.0, -3e38], [255, 0, 0, 1, 0]),
        ([np.nan] * 5, [0] * 5),
    ],
)
def test_mode_f(values: list[float], expected: list[int]) -> None:
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


def test_icc_profile_changes_nothing() -> None:
    image = noise(5, 5)
    assert np.array_equal(pixels(encode(image, "PNG", icc_profile=b"nonsense")), np.asarray(image))


# --- transparency ---------------------------------------------------------------------------------------


def rgba() -> Image.Image:
    array = np.zeros((1, 4, 4), dtype=np.uint8)
    array[0] = [[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128], [0, 0, 0, 51]]
    return Image.fromarray(array)


def over_white(array: np.ndarray) -> np.ndarray:
    share = array[..., 3:].astype(float) / 255
    return array[..., :3] * share + 255 * (1 - share)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_rgba_on_white_or_dropped(kind: str) -> None:
    data = encode(rgba(), kind)
    assert np.abs(pixels(data) - over_white(np.asarray(rgba()))).max() <= 1
    assert pixels(data)[0, :2].tolist() == [[200, 100, 50], [255, 255, 255]]
    assert np.array_equal(pixels(data, DecodeRules(alpha="drop")), np.asarray(rgba())[..., :3])


def test_lossless_webp_with_alpha() -> None:
    data = encode(rgba(), "WEBP", lossless=True, exact=True)
    assert pixels(data)[0, 1].tolist() == [255, 255, 255]
    assert pixels(data, DecodeRules(alpha="drop"))[0, 1].tolist() == [200, 100, 50]


def test_grey_with_alpha() -> None:
    data = encode(Image.frombytes("LA", (2, 1), bytes([80, 255, 80, 0])), "PNG")
    assert pixels(data)[0].tolist() == [[80] * 3, [255] * 3]
    assert pixels(data, DecodeRules(alpha="drop"))[0].tolist() == [[80] * 3, [80] * 3]


def test_premultiplied_modes_on_white() -> None:
    expected = np.asarray(to_rgb(rgba(), "white")).astype(int)
    assert np.abs(np.asarray(to_rgb(rgba().convert("RGBa"), "white")) - expected).max() <= 2
    grey = rgba().convert("LA")
    expected = np.asarray(to_rgb(grey, "white")).astype(int)
    assert np.abs(np.asarray(to_rgb(grey.convert("La"), "white")) - expected).max() <= 2


@pytest.mark.parametrize(("kind", "transparency"), [("PNG", 1), ("PNG", b"\xff\x00\xff"), ("GIF", 1)])
def test_palette_with_transparency(kind: str, transparency: int | bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    data = encode(image, kind, transparency=transparency)
    assert pixels(data)[0].tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]
    dropped = pixels(data, DecodeRules(alpha="drop"))
    assert dropped[0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]


def test_transparent_colour_without_alpha_channel() -> None:
    data = encode(Image.fromarray(np.array([[7, 8]], dtype=np.uint8)), "PNG", transparency=7)
    assert pixels(data)[0, :, 0].tolist() == [255, 8]
    assert pixels(data, DecodeRules(alpha="drop"))[0, :, 0].tolist() == [7, 8]
    data = encode(Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8)), "PNG", transparency=(1, 2, 3))
    assert pixels(data)[0].tolist() == [[255] * 3, [4, 5, 6]]
    wide = encode(Image.fromarray(np.array([[2570, 2571]], dtype=np.uint16)), "PNG", transparency=2570)
    assert pixels(wide)[0, :, 0].tolist() == [255, 10]
    assert pixels(wide, DecodeRules(alpha="drop"))[0, :, 0].tolist() == [10, 10]


# --- orientation, frames, drafts ------------------------------------------------------------------------

STORED_AS = {  # how the upright picture lies in the file, for each EXIF orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


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
def test_unknown_orientation_is_none(orientation: int) -> None:
    assert pixels(encode(noise(4, 3), "PNG", exif=turned(orientation))).shape == (3, 4, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_frame(kind: str) -> None:
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("#f00", "#00f"))
    data = encode(red, kind, save_all=True, append_images=[blue])
    assert np.abs(pixels(data).astype(int) - [255, 0, 0]).max() < 12


def test_mpo_gives_its_first_picture_and_follows_draft() -> None:
    first, second = smooth(400, 300), Image.new("RGB", (400, 300))
    data = encode(first, "MPO", save_all=True, append_images=[second])
    image, size = decode_bytes(data, "x", DecodeRules(draft=30))
    assert (image.size, size) == ((100, 75), (400, 300))
    assert np.asarray(image).mean() > 20


def test_draft_is_smaller_but_looks_the_same() -> None:
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
def test_draft_keeps_twice_the_size_on_the_short_side(draft: int, width: int) -> None:
    data = encode(smooth(400, 420), "JPEG")
    image, size = decode_bytes(data, "x", DecodeRules(draft=draft))
    assert size == (400, 420)
    assert image.width == width


def test_draft_is_for_jpeg_only() -> None:
    assert pixels(encode(noise(64, 64), "PNG"), DecodeRules(draft=4)).shape == (64, 64, 3)


# --- rules ----------------------------------------------------------------------------------------------


def test_fingerprint_is_json_and_leaves_the_limit_out() -> None:
    assert DecodeRules().fingerprint() == {"decoder": "pillow", "alpha": "white", "draft": None}
    assert DecodeRules(max_pixels=5).fingerprint() == DecodeRules().fingerprint()
    assert json.loads(json.dumps(DecodeRules("drop", 512).fingerprint())) == {
        "decoder": "pillow",
        "alpha": "drop",
        "draft": 512,
    }


@pytest.mark.parametrize("bad", [{"alpha": "black"}, {"draft": 0}, {"max_pixels": 0}])
def test_rules_out_of_range(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        DecodeRules(**bad)  # type: ignore[arg-type]


# --- damage ---------------------------------------------------------------------------------------------


def test_empty() -> None:
    assert reason(b"") == "empty"


@pytest.mark.parametrize(
    "data",
    [
        *(b"\0", b"hello, world", b"BM is how this text begins, and it goes on", b"\xff\xd8", b"%PDF-1.7"),
        *(b"<svg/>", b"RIFF\0\0\0\0WAVEfmt ", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"),
        *(b"\0\0\0\x18ftypisom", b"\x28\0\0\0" * 4),
    ],
)
def test_not_an_image(data: bytes) -> None:
    assert reason(data) == "not_an_image"


def test_a_format_outside_the_list_is_not_opened() -> None:
    assert reason(encode(noise(4, 4), "PPM")) == "not_an_image"
    assert reason(encode(noise(16, 16), "ICO")) == "not_an_image"


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize(
    "kind",
    ["JPEG", "JPEG progressive", "PNG", "WEBP", "WEBP lossless", "GIF", "TIFF", "BMP"],
)
def test_truncated(kind: str, share: float) -> None:
    data = encode(noise(90, 70), kind) if kind in FORMATS else SAMPLES[kind]
    assert reason(data[: max(32, int(len(data) * share))]) == "truncated"


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["TIFF lzw", "AVIF"])
def test_some_readers_can_not_tell_a_cut_file_from_a_damaged_one(kind: str, share: float) -> None:
    data = encode(noise(90, 70), kind) if kind in FORMATS else SAMPLES[kind]
    assert reason(data[: max(32, int(len(data) * share))]) in ("truncated", "unreadable")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF lzw"])
def test_damaged_but_whole_is_unreadable(kind: str) -> None:
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


def test_too_large_by_the_header_alone() -> None:
    idat = b"\0\0\0\0IDAT" + struct.pack(">I", 0x35AF061E)
    with pytest.raises(ImageError, match=r"is 30000 x 20000 px, above the limit of 178956970 px") as caught:
        decode_bytes(png_header(30000, 20000) + idat, "x", RULES)
    assert caught.value.reason == "too_large"
    vp8x = struct.pack("<I", 0) + (16382).to_bytes(3, "little") * 2
    riff = b"WEBPVP8X" + struct.pack("<I", 10) + vp8x
    assert reason(b"RIFF" + struct.pack("<I", len(riff)) + riff) == "too_large"


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_limit_on_pixels_is_exact(kind: str) -> None:
    decode_bytes(SAMPLES[kind], "x", DecodeRules(max_pixels=960))
    assert reason(SAMPLES[kind], DecodeRules(max_pixels=959)) == "too_large"


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
@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", *sorted({data[:30] for data in SAMPLES.values()})]))
def test_any_bytes_give_an_image_or_an_image_error(data: bytes, start: bytes) -> None:
    attempt(start + data)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, deadline=None)
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


# --- files ----------------------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(SAMPLES["JPEG turned"])
    return path


def file_reason(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path, RULES)
    str(caught.value).encode()
    return caught.value.reason


def test_facts(photo: Path) -> None:
    os.utime(photo, ns=(1, 1_234_567_890_123_456_789))
    image, facts = read_image(photo, RULES)
    data = photo.read_bytes()
    assert (facts.path, facts.size, facts.mtime_ns) == (photo, len(data), photo.stat().st_mtime_ns)
    assert facts.sha256 == hashlib.sha256(data).hexdigest()
    assert (facts.width, facts.height) == image.size == (24, 40)


@pytest.mark.parametrize("name", ["ünï 世界 🖼.jpg", "two  spaces .jpg", "new\nline.jpg", "'quo\"te.jpg"])
def test_odd_names(photo: Path, name: str) -> None:
    path = photo.rename(photo.with_name(name))
    assert read_image(path, RULES)[1].path == path


def test_missing_broken_and_circular(tmp_path: Path) -> None:
    assert file_reason(tmp_path / "none.jpg") == "vanished"
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    assert file_reason(tmp_path / "broken.jpg") == "vanished"
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert file_reason(tmp_path / "loop.jpg") == "unreadable"
    assert file_reason(tmp_path) == "unreadable"
    assert file_reason(tmp_path / "zero\0byte.jpg") == "unreadable"
    assert file_reason(tmp_path / ("long" * 100 + ".jpg")) == "unreadable"


def test_a_link_to_a_photo_is_followed(photo: Path) -> None:
    link = photo.with_name("link.jpg")
    link.symlink_to(photo)
    assert read_image(link, RULES)[1].path == link


def test_empty_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    assert file_reason(tmp_path / "empty.png") == "empty"
    (tmp_path / "text.png").write_text("this is a text")
    assert file_reason(tmp_path / "text.png") == "not_an_image"


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "video.jpg"
    with path.open("wb") as file:
        file.truncate(2**32 + 1)  # takes no space
    assert file_reason(path) == "too_large"


def test_fifo_and_device_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    assert file_reason(tmp_path / "fifo.jpg") == "unreadable"
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    assert file_reason(tmp_path / "device.jpg") == "unreadable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission(photo: Path) -> None:
    photo.chmod(0)
    assert file_reason(photo) == "permission"


def test_permission_as_any_user(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    assert file_reason(photo) == "permission"


def test_name_that_is_not_utf8(photo: Path) -> None:
    path = photo.rename(photo.parent / os.fsdecode(b"caf\xe9.jpg"))
    with pytest.raises(ImageError, match=r"caf\\xe9\.jpg") as caught:
        read_image(path, RULES)
    assert caught.value.reason == "bad_name"


# --- arrays and sizes -----------------------------------------------------------------------------------


def test_from_array() -> None:
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
def test_from_array_refuses_anything_else(array: np.ndarray, got: str) -> None:
    with pytest.raises(UsageError, match=f"query: .*not (a )?{got}"):
        from_array(array, "query")


def test_resize_square_is_lanczos_without_aspect_ratio() -> None:
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


@settings(max_examples=60, deadline=None)
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
