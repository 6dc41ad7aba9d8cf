"""Encoded batches of images: computed, in flight to main memory, and as an index stores them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.codecs import Codec
from retrieval.devices.transfer import DeviceClock, Fetched
from retrieval.errors import DiffSimError
from retrieval.scoring.aas import QKV


@dataclass(frozen=True)
class EncodedImages:
    """An encoded batch: float32 vectors ``[images, dim]`` by encoder, and Q/K/V by mode on the models' device."""

    vectors: Mapping[str, NDArray[np.float32]]
    tensors: Mapping[str, QKV]

    @classmethod
    def cat(cls, parts: Sequence["EncodedImages"]) -> "EncodedImages":
        """Return the images of all ``parts``, which were encoded for the same outputs."""
        return cls(
            {name: np.concatenate([part.vectors[name] for part in parts]) for name in parts[0].vectors},
            {mode: QKV.cat([part.tensors[mode] for part in parts]) for mode in parts[0].tensors},
        )


@dataclass(frozen=True)
class StoredBatch:
    """A batch as the index stores it: float32 vectors ``[images, dim]`` by encoder, and the codec's arrays by mode."""

    vectors: Mapping[str, NDArray[np.float32]]
    tensors: Mapping[str, Mapping[str, NDArray[Any]]]
    unusable: tuple[int, ...] = ()  # positions in the batch of images with an infinite number or NaN: they are left out


@dataclass(frozen=True)
class InFlightBatch:
    """A batch that the device is computing, while earlier results are copied to main memory."""

    vectors: Mapping[str, Fetched]
    arrays: Mapping[str, Mapping[str, Fetched]]  # by mode: the codec's input
    codec: Codec
    clock: DeviceClock

    def wait(self) -> float:
        """Wait until every result is in main memory; return the seconds that the device computed."""
        for fetched in (*self.vectors.values(), *(each for mode in self.arrays.values() for each in mode.values())):
            fetched()
        return self.clock.seconds()

    def stored(self) -> StoredBatch:
        """Wait for the batch, and return it as the index stores it: without images whose numbers can't be stored."""
        # Modes with the same target share one mapping.
        shared = {id(fetched): fetched for fetched in self.arrays.values()}
        floats = {key: {name: wait() for name, wait in fetched.items()} for key, fetched in shared.items()}
        vectors = {name: wait() for name, wait in self.vectors.items()}
        wrong: tuple[int, ...] = ()
        encoded = _encoded(self.codec, floats, vectors)
        if encoded is None:
            count = max((len(array) for each in (vectors, *floats.values()) for array in each.values()), default=0)
            picked = [(_rows(floats, [n]), {name: array[[n]] for name, array in vectors.items()}) for n in range(count)]
            wrong = tuple(n for n, (some, own) in enumerate(picked) if _encoded(self.codec, some, own) is None)
            right = [n for n in range(count) if n not in wrong]
            vectors = {name: array[right] for name, array in vectors.items()}
            encoded = _encoded(self.codec, _rows(floats, right), vectors) if right else None
        if encoded is None:
            return StoredBatch({}, {}, wrong)
        return StoredBatch(vectors, {mode: encoded[id(fetched)] for mode, fetched in self.arrays.items()}, wrong)


_Floats = Mapping[int, Mapping[str, NDArray[Any]]]


def _encoded(
    codec: Codec, floats: _Floats, vectors: Mapping[str, NDArray[Any]]
) -> dict[int, Mapping[str, NDArray[Any]]] | None:
    """Return what the codec makes of each mapping of arrays; None if a number is infinite, NaN, or does not fit."""
    if not all(np.isfinite(array).all() for array in vectors.values()):
        return None
    try:
        return {key: codec.encode(each) for key, each in floats.items()}
    except DiffSimError:
        return None


def _rows(floats: _Floats, rows: Sequence[int]) -> dict[int, dict[str, NDArray[Any]]]:
    return {key: {name: array[list(rows)] for name, array in each.items()} for key, each in floats.items()}
