"""Read files of weights, see whether they are whole, and turn the many errors of damaged ones into one."""

import json
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from retrieval.errors import ModelError
from retrieval.text import printable

if TYPE_CHECKING:
    from torch import Tensor

POINTER = b"version https://git-lfs"  # the text that git leaves in place of a large file without git-lfs
MOST_HEADER_BYTES = 100_000_000  # the limit of safetensors itself


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without control characters; its class where it has no text."""
    return printable(next(iter(str(error).strip().splitlines()), "") or type(error).__name__)


@contextmanager
def model_errors(failure: str) -> Iterator[None]:
    """Turn every error that damaged or unsuitable weights cause into a ModelError that begins with ``failure``."""
    from safetensors import SafetensorError

    known = (OSError, ValueError, RuntimeError, KeyError, IndexError, AttributeError, TypeError)
    try:
        yield
    except ModelError:
        raise
    except (*known, EOFError, UnpicklingError, struct.error, SafetensorError, zipfile.BadZipFile) as error:
        raise ModelError(f"{failure}: {first_line(error)}") from error


def find_damage(path: Path) -> str:
    """Return what is wrong with a file of weights or of JSON, as a clause; an empty text if nothing is.

    Sizes and headers are checked, not every byte. It takes milliseconds.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(len(POINTER))
    except OSError as error:
        return f"can't be read ({error.strerror or error})"
    if beginning == POINTER:
        return "is a pointer of git-lfs, not the file itself"
    if not beginning:
        return "is empty"
    if path.suffix == ".safetensors":
        return _damage_of_safetensors(path)
    if path.suffix in {".bin", ".pt", ".pth"}:
        return _damage_of_pickle(path, beginning)
    if path.suffix == ".json":
        return _damage_of_json(path)
    return ""


def require_whole(paths: Iterable[Path], failure: str) -> None:
    """Raise a ModelError that begins with ``failure`` and names the first damaged one of ``paths``."""
    for path in paths:
        if damage := find_damage(path):
            raise ModelError(f"{failure}: {path} {damage}", advice="fetch-again", file=path)


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file, and the position of the first tensor's bytes.

    Raises:
        ValueError: the file is no safetensors file, or it is cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(MOST_HEADER_BYTES, size - 8):
            raise ValueError("is no safetensors file, or is cut off in its header")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError("has a header that can't be read") from error
    if size != expected:
        raise ValueError(f"is cut off or too long: {size} bytes instead of {expected}")
    return header, 8 + length


def _damage_of_safetensors(path: Path) -> str:
    try:
        read_header(path)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def _damage_of_pickle(path: Path, beginning: bytes) -> str:
    # Since torch 1.6 a file is a zip archive, whose table of contents stands at the end; before, it was a bare pickle.
    if beginning.startswith(b"PK"):
        return "" if zipfile.is_zipfile(path) else "is cut off"
    return "" if beginning.startswith(b"\x80") else "is no file of PyTorch"


def _damage_of_json(path: Path) -> str:
    try:
        json.loads(path.read_text("utf-8"))
    except ValueError:
        return "is no JSON"
    return ""


def read_tensors(path: Path, failure: str = "") -> dict[str, "Tensor"]:
    """Return the tensors of a file by name, in memory or mapped into it; nested names are joined by dots.

    A pickle is read with ``weights_only``, which refuses to run code. An error begins with ``failure``.

    Raises:
        ModelError: the file is damaged, or it holds anything but tensors.
    """
    failure = failure or f"{path} can't be loaded"
    require_whole((path,), failure)
    with model_errors(failure):
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        import torch

        mapped = zipfile.is_zipfile(path)
        return flatten(torch.load(path, map_location="cpu", weights_only=True, mmap=mapped))


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, "Tensor"]:
    """Return a nested mapping of tensors as a flat one, with names as safetensors files have them."""
    from torch import Tensor

    if not isinstance(nested, Mapping):
        raise TypeError("it holds no tensors by name")
    flat: dict[str, Tensor] = {}
    for name, value in nested.items():
        if isinstance(value, Tensor):
            flat[f"{prefix}{name}"] = value
        elif isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
    return flat
