"""The projections of an index: weights that turn a stored layer input into Q, K and V, one ``.npz`` per layer.

A file is named by its content's SHA-256, so modes that share a layer share a file, and no file is updated in place.
The generation holds the digest. Only the engine interprets the arrays.
"""

import hashlib
import io
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from index_store.checks.arrays import decode_arrays
from index_store.codecs import all_finite
from index_store.files import atomic_write, decode_or_corrupt
from index_store.layout import Layout


def write_projection(layout: Layout, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Write ``arrays``, durably; return the digest under which a generation names them."""
    buffer, named = io.BytesIO(), cast(Any, dict(arrays))
    np.savez(buffer, **named)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    path = layout.projection(digest)
    atomic_write(path, buffer.getvalue())
    return digest


def read_projection(layout: Layout, digest: str) -> dict[str, NDArray[Any]]:
    """Read the arrays of ``digest``; IndexCorruptError if the file is missing or damaged."""
    path = layout.projection(digest)

    def decode(data: bytes) -> dict[str, NDArray[Any]]:
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError("its digest does not match its content")
        arrays = decode_arrays(data)
        infinite = [name for name, array in arrays.items() if not all_finite(array)]
        if infinite:
            raise ValueError(f"{', '.join(infinite)} holds numbers that are infinite or NaN")
        return arrays

    return decode_or_corrupt(path, decode)
