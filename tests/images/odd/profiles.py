"""ICC profiles of version 2, written by hand: RGB and grey ones by numbers, a CMYK one as a table."""

import struct

import numpy as np

from tests.images.odd.picture import SRGB, Space, to_linear

D50 = np.array([0.9642, 1.0, 0.8249])
_GRID = 9  # points a channel of the CMYK table


def fixed(values: np.ndarray) -> bytes:
    return b"".join(struct.pack(">i", round(float(v) * 65536)) for v in values)


def assemble(space: bytes, connection: bytes, tags: dict[bytes, bytes], device: bytes = b"mntr") -> bytes:
    text = b"desc\0\0\0\0\0\0\0\5test\0".ljust(96, b"\0")
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"wtpt": b"XYZ \0\0\0\0" + fixed(D50), **tags}
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content.ljust(-(-len(content) // 4) * 4, b"\0")
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, device, space, connection)
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp"
    return head.ljust(68, b"\0") + fixed(D50) + bytes(48) + table + body


def curve(gamma: float) -> bytes:
    """Return a table of 1024 points: version 2 has no exact power above 1/256."""
    points = np.rint(65535 * np.linspace(0, 1, 1024) ** gamma).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + points.tobytes()


def rgb_profile(space: Space, device: bytes = b"mntr") -> bytes:
    tags = {}
    for name, column in zip((b"r", b"g", b"b"), space.to_xyz().T, strict=True):
        tags |= {name + b"XYZ": b"XYZ \0\0\0\0" + fixed(column), name + b"TRC": curve(space.gamma)}
    return assemble(b"RGB ", b"XYZ ", tags, device)


def grey_profile(gamma: float) -> bytes:
    return assemble(b"GRAY", b"XYZ ", {b"kTRC": curve(gamma)})


def inks_shown(cmyk: np.ndarray) -> np.ndarray:
    """Return the sRGB values 0..255 of inks 0..1 ``[..., 4]`` on the press that the profile describes."""
    return 255 * (1 - cmyk[..., :3]) ** 1.4 * (1 - cmyk[..., 3:]) ** 1.2


def cmyk_profile() -> bytes:
    """Return a press whose table says what :func:`inks_shown` says."""
    axis = np.linspace(0, 1, _GRID)
    inks = np.stack(np.meshgrid(axis, axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 4)
    xyz = to_linear(inks_shown(inks)) @ SRGB.to_xyz().T / D50
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    lightness = 116 * f[:, 1] - 16
    lab = np.stack([lightness * 65280 / 100, *((128 + d) * 256 for d in _chroma(f))], axis=1)
    table = np.rint(np.clip(lab, 0, 65535)).astype(">u2").tobytes()
    ramp = np.array([0, 65535], ">u2").tobytes()
    head = b"mft2\0\0\0\0" + bytes([4, 3, _GRID, 0]) + fixed(np.eye(3).ravel()) + struct.pack(">HH", 2, 2)
    return assemble(b"CMYK", b"Lab ", {b"A2B0": head + ramp * 4 + table + ramp * 3}, b"prtr")


def _chroma(f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])
