"""Files that Pillow encodes: profiles and orientations in every format, compressions, and JPEGs that end early."""

import io
from collections.abc import Iterator
from functools import cache

import numpy as np
import pillow_heif
from PIL import Image

from tests.images.odd.picture import SPACES, Case, as_rgb, bytes_of, from_linear, grey, image, picture
from tests.images.odd.profiles import assemble, cmyk_profile, grey_profile, inks_shown, rgb_profile
from tests.support.encoded_images import STORED_AS, encode, turned

_WELL: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 99, "subsampling": 0},
    "PNG": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "HEIC": {"quality": 97, "chroma": 444},
}
_WIDE = ("linear", "prophoto", "rec2020")  # the loss of a lossy format grows above the tolerance in these


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    options = {**_WELL[kind], **options}
    if kind != "HEIC":
        return encode(picture, kind, **options)
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture).save(buffer, **options)
    return buffer.getvalue()


def with_profiles() -> Iterator[Case]:
    """RGB pictures in other colour spaces, in every format."""
    for space in SPACES:
        profile, held = rgb_profile(space), image(space.holding(picture()))
        for kind in _WELL:
            if kind in ("AVIF", "JPEG") and space.name in _WIDE:
                continue
            yield Case(f"{kind.lower()}-in-{space.name}", _with_profile(held, kind, profile), picture())
    held = SPACES[0].holding(picture())
    alpha = np.tile(np.linspace(0, 255, 48), (32, 1))[..., None]
    for kind in ("PNG", "WEBP", "TIFF"):
        clear = image(np.concatenate([held, alpha], axis=2))
        over = picture() * bytes_of(alpha) / 255 + 255 - bytes_of(alpha)
        data = _with_profile(clear, kind, rgb_profile(SPACES[0]))
        yield Case(f"{kind.lower()}-clear-in-p3", data, over)


def _with_profile(held: Image.Image, kind: str, profile: bytes) -> bytes:
    if kind == "HEIC":
        held.info["icc_profile"] = profile
        return saved(held, kind)
    return saved(held, kind, icc_profile=profile, **({"exact": True} if kind == "WEBP" else {}))


def with_other_profiles() -> Iterator[Case]:
    """Grey and CMYK profiles, and profiles that are damaged or meant for other pixels."""
    for gamma in (1.0, 1.8, 2.6):
        held = 255 * (grey() / 255)
        shown = as_rgb(from_linear((np.rint(held) / 255) ** gamma))
        for kind in ("JPEG", "PNG", "TIFF"):
            data = saved(image(held), kind, icc_profile=grey_profile(gamma))
            yield Case(f"{kind.lower()}-grey-gamma-{gamma}", data, shown)
        wide = Image.fromarray(np.rint(held * 257).astype(np.uint16))
        yield Case(f"png-grey16-gamma-{gamma}", saved(wide, "PNG", icc_profile=grey_profile(gamma)), shown)
    inks = np.concatenate([1 - picture() / 255, np.tile(np.linspace(0, 0.6, 48), (32, 1))[..., None]], axis=2)
    cmyk = Image.frombytes("CMYK", (48, 32), bytes_of(255 * inks).tobytes())
    for kind in ("JPEG", "TIFF"):
        data = saved(cmyk, kind, icc_profile=cmyk_profile())
        yield Case(f"{kind.lower()}-cmyk-profile", data, inks_shown(inks))
        plain = 255 * (1 - inks[..., :3]) * (1 - inks[..., 3:])
        yield Case(f"{kind.lower()}-cmyk-plain", saved(cmyk, kind), plain)
    good = rgb_profile(SPACES[2])
    others = {
        "cut": good[:300],
        "short": good[:100],
        "nonsense": b"nonsense" * 40,
        "of-lab": assemble(b"Lab ", b"XYZ ", {}),
        "of-cmyk": cmyk_profile(),
        "of-grey": grey_profile(1.0),
        "a-link": rgb_profile(SPACES[2], device=b"link"),
        "without-tags": assemble(b"RGB ", b"XYZ ", {}),
        "wrong-offsets": good[:132] + b"\xff" * 60 + good[192:],
    }
    for name, profile in others.items():
        for kind in ("JPEG", "PNG"):
            yield Case(f"{kind.lower()}-profile-{name}", saved(image(picture()), kind, icc_profile=profile), picture())


def turns() -> Iterator[Case]:
    """All eight orientations in every format."""
    for kind in _WELL:
        for orientation, step in STORED_AS.items():
            stored = image(picture()) if step is None else image(picture()).transpose(step)
            data = saved(stored, kind, exif=turned(orientation).tobytes())
            yield Case(f"{kind.lower()}-turned-{orientation}", data, picture())


def compressed() -> Iterator[Case]:
    """Compressions of TIFF, bitmaps of other depths, JPEG variants, and the first picture of several."""
    rgb, truth = image(picture()), bytes_of(picture()).astype(float)
    for name in ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "zstd", "lzma", "webp", "jpeg"):
        try:
            data = encode(rgb, "TIFF", compression=name, **({"quality": 97} if name == "jpeg" else {}))
        except OSError:  # a build of libtiff without this codec
            continue
        yield Case(f"tiff-{name}", data, truth)
    bits = Image.fromarray(grey() > 128)
    two = as_rgb(np.where(grey() > 128, 255.0, 0.0))
    for name in ("group3", "group4", "tiff_ccitt", "packbits"):
        yield Case(f"tiff-bilevel-{name}", encode(bits, "TIFF", compression=name), two)
    yield Case("bmp-bilevel", encode(bits, "BMP"), two)
    for mode in ("L", "P", "RGB", "RGBA"):
        held = rgb.convert(mode)
        yield Case(f"bmp-{mode.lower()}", encode(held, "BMP"), np.asarray(held.convert("RGB")).astype(float))
    for name, options in {
        "420": {"subsampling": 2},
        "422": {"subsampling": 1},
        "progressive": {"progressive": True},
        "restart": {"restart_marker_blocks": 2},
        "kept-rgb": {"keep_rgb": True},
    }.items():
        yield Case(f"jpeg-{name}", encode(rgb, "JPEG", quality=97, **options), truth)
    yield Case("mpo", encode(rgb, "MPO", quality=97, save_all=True, append_images=[rgb.rotate(180)]), truth)
    yield Case("gif", encode(rgb.convert("P"), "GIF"), np.asarray(rgb.convert("P").convert("RGB")).astype(float))


@cache
def _large() -> tuple[np.ndarray, Image.Image]:
    values = picture(160, 240)
    return values, image(values)


def cut() -> Iterator[Case]:
    """JPEGs that end early: used as far as they go from half of their rows on, else refused."""
    values, large = _large()
    for name, options in {
        "420": {"subsampling": 2},
        "444": {"subsampling": 0},
        "restart": {"restart_marker_rows": 1},
        "progressive": {"progressive": True, "subsampling": 0},
    }.items():
        data = encode(large, "JPEG", quality=97, **options)
        yield Case(f"jpeg-without-end-{name}", data[:-2], values)
        yield Case(f"jpeg-with-half-an-end-{name}", data[:-1], values)
        if name != "progressive":
            yield Case(f"jpeg-cut-at-90-{name}", data[: int(0.9 * len(data))], values, rows=0.7)
            yield Case(f"jpeg-cut-at-30-{name}", data[: int(0.3 * len(data))], None, ("JPEG", "ends before"))
        else:
            yield Case("jpeg-cut-at-80-progressive", data[: int(0.8 * len(data))], values)
            yield Case("jpeg-cut-at-2-progressive", data[: data.find(b"\xff\xda") + 60], None, ("JPEG", "ends before"))
    grey_jpeg = encode(image(values.mean(axis=2)), "JPEG", quality=97)
    yield Case("jpeg-without-end-grey", grey_jpeg[:-2], as_rgb(values.mean(axis=2)))
    for kind in ("GIF", "WEBP", "BMP"):
        yield Case(f"{kind.lower()}-cut", encode(large, kind)[:-400], None, (kind, "ends before"))
    for kind in ("AVIF", "HEIC"):
        whole = saved(large, kind)
        yield Case(f"{kind.lower()}-cut", whole[: len(whole) // 2], None, (kind,))
