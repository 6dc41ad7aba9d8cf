"""The digest of a small picture that was decoded and resized: it changes when another Pillow gives other pixels.

Pillow and libjpeg compute these steps in integers, so that processors agree.
"""

import hashlib
from base64 import b85decode
from functools import cache
from io import BytesIO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

# A JPEG of 40 x 24 px with halved chroma, because decoders differ in how they enlarge it.
_JPEG = b85decode(
    r"|JeWF01!$>Nk#wx0RR9200961|JwjV02B@n5)Ta&5)cv>6%-gAG9exu93DL^E+jHZKuk+VKt@GST61DhRc%&9Mr4R(ZFhTtf`Lw8"
    r"jhBplmUDiAeE-`3Lje^R7akfOJ0T%Ed{ahKe0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0=}F"
    r"01*fP7yu{(0U`hb5di}c0sq7R7XSeP0RaF20000000000000041q1)Y04Wdv0R#d71Ox{F000000000100IL95g`&HF<}KVfzd%y"
    r"Q<Aa4;s3+{7XbhR0RR910000000000000661q1)Y03i_o0s;a80R;d600000000010ssRMAp{aJA|pX@!T;I-3<CiG0ucid06zf2"
    r"h7z=^LUgKzf%#QZRxrb%%<T_#Q;~jkH>%XF3m=J`Nt$3A<!*<5>sG!i!s%qwSTa<gK}-WPu<T?sZO7Bma*^_1lmOD$T6tOfJ=B}M"
    r"e^FXdxi8(k88lgj9eJIgiiWYdbg~{8nb4kqe^DsRbD@|#o7(#cuQ(diz8hCQj6Z4jS<^{=+?>`Qzz;774g3Iztg!%+1TIMks;UP6"
    r"04G}h7TDXzAq;5hTyO&EYVB&Vn4xK!S8JC|#&@(tf%jPUnyD>AF)|pdO=-egE*vcckAqqf5hl({5eA)%c*OtN"
)
_TALL, _SIDE = (30, 300), 32  # px; Pillow chooses the order of its two passes by the shape of the image


@cache
def pixel_probe() -> str:
    """Return the digest (16 hex digits) of a fixed JPEG: decoded in full, at half scale, and resized as models do."""
    full = JpegImageFile(BytesIO(_JPEG))
    full.load()
    half = JpegImageFile(BytesIO(_JPEG))
    half.draft(None, (full.width // 2, full.height // 2))
    half.load()
    digest = hashlib.sha256(full.tobytes() + half.tobytes())
    for shape in (_TALL, _TALL[::-1], full.size):
        image = full.resize(shape, Image.Resampling.NEAREST)
        digest.update(image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS).tobytes())
        box = (0.5, 1.0, image.width - 1.25, image.height - 0.5)
        digest.update(image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, box=box).tobytes())
    return digest.hexdigest()[:16]
