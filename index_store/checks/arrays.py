"""Decode npy and npz bytes whose headers are not trusted: no pickles, and no more memory than the bytes account for."""

import ast
import io
import math
import re
import struct
import zipfile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from index_store.checks.json_values import MOST_ROWS, whole_number
from index_store.checks.names import shown

MOST_AXES = 8
MOST_HEADER = 4096  # characters; numpy writes under 200
_DTYPE = re.compile(r"[<|][iuf][1248]")  # integers and floats
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
    """Return the shape, whether it is in Fortran's order, and the dtype of an npy file; ValueError if it is none.

    numpy's own reader of headers raises nearly anything when they are damaged.
    """
    magic = file.read(8)
    form = {b"\x93NUMPY\x01\x00": "<H", b"\x93NUMPY\x02\x00": "<I"}.get(magic)
    if form is None:
        raise ValueError("it is not an npy file")
    length = int.from_bytes(file.read(struct.calcsize(form)), "little")
    text = file.read(min(length, MOST_HEADER)).decode("latin-1")
    try:
        header = ast.literal_eval(text.strip())
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError("its header makes no sense") from error
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("its header makes no sense")
    descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    if not isinstance(descr, str) or not _DTYPE.fullmatch(descr) or type(fortran) is not bool:
        raise ValueError(f"it holds {shown(descr)} instead of numbers")
    if not isinstance(shape, tuple) or len(shape) > MOST_AXES:
        raise ValueError(f"its shape is {shown(shape)}")
    sizes = tuple(whole_number(size, "a size of its shape", 0, MOST_ROWS) for size in shape)
    return sizes, fortran, np.dtype(descr)


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
