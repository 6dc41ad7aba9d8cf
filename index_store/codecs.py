"""Storage codecs: the arrays and dtypes that an item's tensors have on disk. One table.

A codec encodes a model's float arrays ``[rows, ...]``: ``q``, ``k`` and ``v``, or the layer's input ``h``, which the
index's projection turns into q, k and v later. Encoding uses numpy; decoding is plain arithmetic that works
on numpy arrays and tensors alike, so a reader may decode on the device that computes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.errors import DiffSimError, UsageError

Arrays = Mapping[str, NDArray[Any]]
"""Float arrays by name, ``[rows, ...]`` each."""

INT8_STEPS = 127  # on either side of zero


@dataclass(frozen=True)
class StoredArray:
    """One array of a codec; ``axes`` names its axes after the first, which has one row per item."""

    name: str
    dtype: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Codec:
    """How the tensors of items are stored."""

    name: str
    hidden: bool  # whether it stores the layer's input h instead of q, k and v
    arrays: tuple[StoredArray, ...]
    encode: Callable[[Arrays], dict[str, NDArray[Any]]]
    """Turn float arrays into those of ``arrays``; DiffSimError if a number does not fit."""
    decode: Callable[[Mapping[str, Any]], dict[str, Any]]
    """Turn stored arrays or tensors, widened to float32 by the caller, into those that ``encode`` took."""

    def dtype_of(self, name: str) -> np.dtype[Any]:
        """Return the dtype of the array ``name``."""
        return np.dtype(next(array.dtype for array in self.arrays if array.name == name))

    def bytes_of(self, floats: Arrays) -> int:
        """Return the size in bytes of ``floats`` when encoded."""
        return sum(array.nbytes for array in self.encode(floats).values())


def to_float16(name: str, floats: NDArray[Any]) -> NDArray[np.float16]:
    """Return ``floats`` as float16; DiffSimError if one becomes infinite or NaN, because no score could use it."""
    with np.errstate(over="ignore"):  # the check below finds overflows
        halves = np.asarray(floats, dtype="<f2")
    if not all_finite(halves):
        raise DiffSimError(f"the model's {name} tensors do not fit float16 (infinite or not a number)")
    return halves


def all_finite(array: NDArray[Any]) -> bool:
    """Say whether every number of ``array`` is finite."""
    if array.dtype != np.float16:
        return bool(np.isfinite(array).all())
    exponent = np.uint16(0x7C00)  # all ones in infinities and NaN; np.isfinite takes five times as long on float16
    return not ((np.ascontiguousarray(array).view(np.uint16) & exponent) == exponent).any()


def _halves(floats: Arrays) -> dict[str, NDArray[Any]]:
    return {name: to_float16(name, array) for name, array in floats.items()}


def _unchanged(stored: Mapping[str, Any]) -> dict[str, Any]:
    return dict(stored)


def _to_int8(floats: Arrays) -> dict[str, NDArray[Any]]:
    """Quantise h ``[rows, branches, tokens, width]`` with one scale per item, branch and channel.

    The error is at most half the scale. Channels of a layer's input differ in size by orders of magnitude, tokens do
    not: one scale per token would spend most steps on the few large channels.
    """
    hidden = np.asarray(floats["h"], np.float32)
    largest = np.abs(hidden).max(axis=-2)
    scale = to_float16("h", largest / INT8_STEPS)
    # Rounded up, so that the largest value has a step of its own; never zero, so that nothing is divided by it.
    up = np.nextafter(scale, np.float16(np.inf))
    scale = np.where(scale.astype(np.float32) * INT8_STEPS < largest, up, scale)
    scale = to_float16("h", np.maximum(scale, np.finfo("<f2").smallest_subnormal))
    steps = np.rint(hidden / scale[..., None, :].astype(np.float32))
    return {"h": steps.astype(np.int8), "scale": scale}


def _from_int8(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {"h": stored["h"] * stored["scale"][..., None, :]}


_HEADS = ("branches", "heads", "tokens", "head_dim")
_CHANNELS = ("branches", "tokens", "width")

CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        Codec("qkv-float16", False, tuple(StoredArray(n, "<f2", _HEADS) for n in "qkv"), _halves, _unchanged),
        Codec("hidden-float16", True, (StoredArray("h", "<f2", _CHANNELS),), _halves, _unchanged),
        Codec(
            "hidden-int8",
            True,
            (StoredArray("h", "|i1", _CHANNELS), StoredArray("scale", "<f2", ("branches", "width"))),
            _to_int8,
            _from_int8,
        ),
    )
}
DEFAULT_CODEC = "qkv-float16"


def find_codec(name: str) -> Codec:
    """Look a codec up; an unknown name is a UsageError that lists the known ones."""
    if name not in CODECS:
        raise UsageError(f"unknown codec '{name}'; known: {', '.join(CODECS)}")
    return CODECS[name]
