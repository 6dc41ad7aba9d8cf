"""The released file of weights: five pickles, then the numbers of each tensor, as torch wrote them before version 1.6.

``torch.load`` reads it in Python and takes eight times as long, which is a sixth of what a search adds to importing
torch. The unpickler knows the names that such a file needs, and refuses all others, so a file can run nothing.
"""

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
_SIZE_BYTES = 8  # before the numbers of a storage: how many there are


@dataclass(frozen=True)
class _Storage:
    """The numbers that one or several tensors view."""

    dtype: torch.dtype
    key: str
    count: int


@dataclass(frozen=True)
class _View:
    """A tensor, as its storage and the place of its numbers there."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _view(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> _View:
    return _View(storage, offset, size, stride)


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "LongStorage"): torch.int64,
    ("torch._utils", "_rebuild_tensor_v2"): _view,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no weights need")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count, whole = pid
        if kind != "storage" or whole is not None or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("it names a storage of another kind")
        return _Storage(dtype, key, count)


def read_released(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU, with the strides that they were saved with.

    Raises:
        OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError: the file can't be
            read, or is no such file.
    """
    with path.open("rb") as file:
        magic, protocol, system, views, keys = (_Unpickler(file).load() for _ in range(5))
        if (magic, protocol, system["little_endian"]) != (MAGIC, PROTOCOL, True):
            raise ValueError("it is not in torch's format of before version 1.6")
        found = _numbers(file, keys, views)
    return {
        name: found[view.storage.key].as_strided(view.size, view.stride, view.offset) for name, view in views.items()
    }


def _numbers(file: BufferedReader, keys: list[str], views: Mapping[str, _View]) -> dict[str, Tensor]:
    storages = {view.storage.key: view.storage for view in views.values()}
    found = {}
    for key in keys:
        storage = storages[key]
        if int.from_bytes(file.read(_SIZE_BYTES), "little") != storage.count:
            raise ValueError("a storage has another size than its tensors say")
        data = bytearray(storage.count * storage.dtype.itemsize)
        if file.readinto(data) != len(data):
            raise EOFError("it is truncated")
        found[key] = torch.frombuffer(data, dtype=storage.dtype)
    return found
