"""Identify weights by the tensors that are read: the same numbers have the same digest, whatever files hold them.

Names, types, shapes and bytes of the tensors count, as they are in the files. File names do not count, nor does the
form (safetensors or pickle), the number of shards or any file beside them.
"""

import hashlib
import mmap
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.models.weights.parts import FoundPart, networks
from retrieval.models.weights.reading import model_errors, read_header, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

_THREADS = 8  # hashlib lets other threads run, and one thread reads about 1.5 GB/s
_TYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""The names that safetensors has for torch's types."""
_NOT_PARAMETERS = "position_ids"  # older files hold these numbers 0, 1, 2, ..., which the networks make themselves


def weights_digest(parts: Iterable[FoundPart]) -> str:
    """Return one SHA-256 over the tensors that are read from ``parts``; it takes about a second for 4 GB.

    Raises:
        ModelError: a file can't be read.
    """
    whole = hashlib.sha256()
    for found in sorted(networks(tuple(parts)), key=lambda found: found.part.folder):
        stamps = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in found.weights)
        whole.update(f"{found.part.folder}:{_digest(stamps, found.part.read)}\n".encode())
    return whole.hexdigest()


def tensors_digest(tensors: "Mapping[str, Tensor]") -> str:
    """Return one SHA-256 over named tensors."""
    with ThreadPoolExecutor(_THREADS) as threads:
        return _combine(dict(zip(tensors, threads.map(_line, tensors.values()), strict=True)))


@lru_cache(maxsize=64)
def _digest(stamps: tuple[tuple[Path, int, int], ...], read: tuple[str, ...]) -> str:
    """Return the digest of a network's files; size and time tell a changed file from the one read before."""
    lines: dict[str, str] = {}
    for path, _, _ in stamps:
        lines |= _lines(path, read)
    if read and not lines:
        return _digest(stamps, ())  # the names are others than those of the published file
    return _combine(lines)


def _combine(lines: Mapping[str, str]) -> str:
    names = sorted(name for name in lines if not name.endswith(_NOT_PARAMETERS))
    return hashlib.sha256("".join(f"{name}:{lines[name]}\n" for name in names).encode()).hexdigest()


def _lines(path: Path, read: tuple[str, ...]) -> dict[str, str]:
    """Return ``type:shape:SHA-256`` by the name of each tensor that is read."""
    if path.suffix == ".safetensors":
        with model_errors(f"{path} can't be read"):
            return _lines_of_safetensors(path, read)
    tensors = {name: tensor for name, tensor in read_tensors(path).items() if _may_count(name, read)}
    with ThreadPoolExecutor(_THREADS) as threads:
        return dict(zip(tensors, threads.map(_line, tensors.values()), strict=True))


def _may_count(name: str, read: tuple[str, ...]) -> bool:
    return not read or name.startswith(read)


def _lines_of_safetensors(path: Path, read: tuple[str, ...]) -> dict[str, str]:
    header, start = read_header(path)
    entries = {n: entry for n, entry in header.items() if n != "__metadata__" and _may_count(n, read)}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)

        def line(entry: Mapping[str, Any]) -> str:
            begin, end = entry["data_offsets"]
            with view[start + begin : start + end] as piece:
                return f"{entry['dtype']}:{entry['shape']}:{hashlib.sha256(piece).hexdigest()}"

        with view, ThreadPoolExecutor(_THREADS) as threads:
            return dict(zip(entries, threads.map(line, entries.values()), strict=True))


def _line(tensor: "Tensor") -> str:
    """Return the same for a tensor in memory."""
    import torch

    stated = str(tensor.dtype).removeprefix("torch.")
    name = _TYPES.get(stated, stated)
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{name}:{list(tensor.shape)}:{hashlib.sha256(raw.data).hexdigest()}"
