"""Write ICC profiles from numbers: the colour space that a PNG's chunks or an AVIF's header state."""

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Chromaticities = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
"""CIE x and y of white, red, green and blue."""

D65 = (0.3127, 0.3290)
SRGB_PRIMARIES: Chromaticities = (D65, (0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
_PRIMARIES: dict[int, Chromaticities] = {  # by the number of ITU-T H.273
    1: SRGB_PRIMARIES,
    5: (D65, (0.640, 0.330), (0.290, 0.600), (0.150, 0.060)),
    6: (D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: (D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: (D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}  # by the number of H.273; 13 is sRGB's curve, and viewers take 1 for it
_SRGB_CURVE_NUMBERS = (1, 2, 6, 13, 14, 15)
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def matrix_profile(primaries: Chromaticities, gamma: float | None) -> bytes | None:
    """Return an ICC profile for these primaries and a power of ``gamma``; None as a gamma is sRGB's own curve.

    Returns None where the numbers span no colour space.
    """
    colorants = _adapted_colorants(primaries)
    if colorants is None or (gamma is not None and not 0.1 <= gamma <= 10):
        return None
    if gamma is None:
        numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        curve = b"para\0\0\0\0\0\3\0\0" + _fixed(numbers)
    else:
        curve = b"para\0\0\0\0\0\0\0\0" + _fixed([gamma])
    text = b"mluc\0\0\0\0\0\0\0\1\0\0\0\x0cenUS\0\0\0\2\0\0\0\x1c\0-\0\0"
    tags = {b"desc": text, b"cprt": text, b"wtpt": _xyz(_D50)}
    for name, column in zip((b"r", b"g", b"b"), colorants.T, strict=True):
        tags |= {name + b"XYZ": _xyz(column), name + b"TRC": curve}
    return _assemble(tags)


def coded_profile(primaries: int, transfer: int) -> bytes | None:
    """Return the ICC profile of the code points of ITU-T H.273; None for sRGB, unknown ones, PQ and HLG."""
    known = _PRIMARIES.get(primaries)
    if known is None or (known is SRGB_PRIMARIES and transfer in _SRGB_CURVE_NUMBERS):
        return None
    if transfer in _SRGB_CURVE_NUMBERS:
        return matrix_profile(known, None)
    return matrix_profile(known, _GAMMAS[transfer]) if transfer in _GAMMAS else None


def _adapted_colorants(primaries: Chromaticities) -> NDArray[np.float64] | None:
    """Return XYZ of red, green and blue as columns [3, 3], adapted from their white to D50 by Bradford's method."""
    if any(y <= 0 for _, y in primaries):
        return None
    white, *others = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in primaries)
    unscaled = np.stack(others, axis=1)
    try:
        colorants = unscaled * np.linalg.solve(unscaled, white)
        cones = _BRADFORD @ white
        adapted: NDArray[np.float64] = (
            np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / cones) @ _BRADFORD @ colorants
        )
    except np.linalg.LinAlgError:
        return None
    return adapted if np.isfinite(adapted).all() and np.abs(adapted).max() < 4 else None


def _assemble(tags: dict[bytes, bytes]) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    size = start + len(body)
    date = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    head = struct.pack(">I4sI", size, b"\0\0\0\0", 0x04300000) + b"mntrRGB XYZ " + date + b"acsp"
    return head.ljust(68, b"\0") + _fixed(_D50) + b"\0" * 48 + table + body


def _xyz(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _fixed(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)
