"""Storage codecs: which arrays an item's tensors are on disk, and how numbers become bytes. One table.

A codec takes what a model gives of some items, as float arrays ``[rows, ...]`` by name: ``q``, ``k`` and ``v``, or the
layer's input ``h``, from which the projection that the index holds makes them again. Encoding is numpy's; decoding is
plain arithmetic on whatever kind of array it is given, so a reader may do it where it computes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.errors import DiffSimError, UsageError

Arrays = Mapping[str, NDArray[Any]]

_LEVELS = 127  # steps of int8 on either side of zero


@dataclass(frozen=True)
class StoredArray:
    """One array of a codec; its first axis, one row an item, is left out of ``axes``."""

    name: str
    dtype: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Codec:
    """How the tensors of items are kept."""

    name: str
    hidden: bool  # whether it takes and gives the layer's input h, instead of q, k and v
    arrays: tuple[StoredArray, ...]
    encode: Callable[[Arrays], dict[str, NDArray[Any]]]
    """From float arrays to those of ``arrays``; DiffSimError where a number does not fit."""
    decode: Callable[[Mapping[str, Any]], dict[str, Any]]
    """From the stored arrays (or tensors), each widened to float32 before, to those that ``encode`` took."""

    def dtype_of(self, name: str) -> np.dtype[Any]:
        """Return the dtype of the array ``name``."""
        return np.dtype(next(array.dtype for array in self.arrays if array.name == name))

    def bytes_of(self, floats: Arrays) -> int:
        """Return how many bytes ``floats`` take once they are encoded."""
        return sum(array.nbytes for array in self.encode(floats).values())


def to_float16(name: str, floats: NDArray[Any]) -> NDArray[np.float16]:
    """Return ``floats`` as float16; infinity or worse is a DiffSimError, since a score of it would be none."""
    with np.errstate(over="ignore"):  # what overflows is found below
        halves = np.asarray(floats, dtype="<f2")
    if not all_finite(halves):
        raise DiffSimError(f"the model's {name} tensors do not fit float16 (infinite or not a number)")
    return halves


def all_finite(array: NDArray[Any]) -> bool:
    """Say whether no number of ``array`` is infinite or none."""
    if array.dtype != np.float16:
        return bool(np.isfinite(array).all())
    exponent = np.uint16(0x7C00)  # all ones in such numbers; numpy's own look at float16 takes five times as long
    return not ((np.ascontiguousarray(array).view(np.uint16) & exponent) == exponent).any()


def _halves(floats: Arrays) -> dict[str, NDArray[Any]]:
    return {name: to_float16(name, array) for name, array in floats.items()}


def _as_they_are(stored: Mapping[str, Any]) -> dict[str, Any]:
    return dict(stored)


def _to_int8(floats: Arrays) -> dict[str, NDArray[Any]]:
    """Quantise h with one scale an item, branch and channel: the error is at most half the scale.

    Channels of a layer's input differ in size by orders of magnitude, tokens do not: one scale a token would spend
    most steps on the few large channels.
    """
    hidden = np.asarray(floats["h"], np.float32)
    largest = np.abs(hidden).max(axis=-2)
    scale = to_float16("h", largest / _LEVELS)
    # Rounded up, so that the largest value has a step of its own; never zero, so that nothing is divided by it.
    up = np.nextafter(scale, np.float16(np.inf))
    scale = np.where(scale.astype(np.float32) * _LEVELS < largest, up, scale)
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
        Codec("qkv-float16", False, tuple(StoredArray(n, "<f2", _HEADS) for n in "qkv"), _halves, _as_they_are),
        Codec("hidden-float16", True, (StoredArray("h", "<f2", _CHANNELS),), _halves, _as_they_are),
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
