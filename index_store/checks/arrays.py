"""Decode npy and npz bytes whose headers are not trusted: no pickles, and no more memory than the bytes account for."""

import io
import math
import zipfile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MOST_AXES = 8
MOST_HEADER = 4096  # characters; numpy writes under 200
KINDS = "iuf"  # of dtypes: integers and floats
MOST_MEMBERS = 64


def decode_array(data: bytes) -> NDArray[Any]:
    """Return the array of an npy file's bytes: integers or floats, exactly as many bytes as its shape needs.

    Raises:
        ValueError: the bytes are something else.
    """
    file = io.BytesIO(data)
    shape, fortran, dtype = read_header(file)
    start = file.tell()
    if math.prod(shape) * dtype.itemsize != len(data) - start:
        raise ValueError(f"its shape {shape} needs another number of bytes than it has")
    array: NDArray[Any] = np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran else "C")
    return array.copy(order="K")  # one that may be written to


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape, whether it is in Fortran's order, and the dtype of an npy file; ValueError if it is none."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it is an npy file of version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(file, max_header_size=MOST_HEADER)
    except (RecursionError, MemoryError, OverflowError) as error:
        raise ValueError("its header makes no sense") from error
    if dtype.kind not in KINDS or dtype.hasobject:
        raise ValueError(f"it holds {dtype} instead of numbers")
    if len(shape) > MOST_AXES or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"its shape is {shape}")
    return shape, fortran, dtype


def decode_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file's bytes by name; members must be stored uncompressed, as numpy stores them.

    Raises:
        ValueError: the bytes are something else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > MOST_MEMBERS or sum(member.file_size for member in members) > len(data):
                raise ValueError("its members are larger than the file")
            if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
                raise ValueError("a member is compressed or encrypted")
            return {member.filename.removesuffix(".npy"): decode_array(archive.read(member)) for member in members}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"it is not a whole npz file: {error}") from error
