"""The column of a table that holds images: their bytes, or the names of their files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from retrieval.errors import ImageError

# Names of columns, the most telling first.
_OF_BYTES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content", "data")
_OF_FILES = ("image", "image_path", "uri", "image_uri", "path", "file_path", "file_name", "filename", "file")

ColumnKind = Literal["struct", "bytes", "files"]


class ImageColumn(NamedTuple):
    """A column of images. A ``struct`` has the fields ``bytes`` and, perhaps, ``path``, as in Hugging Face datasets."""

    name: str
    kind: ColumnKind
    fields: tuple[str, ...]  # the columns to read, as pyarrow names them


def image_column(schema: pa.Schema) -> ImageColumn | None:
    """Return the column that holds images, by types and names; None if there is none."""
    structs = [field.name for field in schema if pa.types.is_struct(field.type) and _has_bytes(field.type)]
    if structs:
        name = _first(structs, _OF_BYTES) or structs[0]
        children = [field.name for field in schema.field(name).type if field.name in ("bytes", "path")]
        return ImageColumn(name, "struct", tuple(f"{name}.{child}" for child in children))
    binary = [field.name for field in schema if _is_binary(field.type)]
    if name := _first(binary, _OF_BYTES) or (binary[0] if len(binary) == 1 else ""):
        return ImageColumn(name, "bytes", (name,))
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    if name := _first(texts, _OF_FILES):
        return ImageColumn(name, "files", (name,))
    return None


def holds_bytes(column: ImageColumn | None) -> bool:
    """Say whether a table found in a folder is one of images: one of other binary values or of names is passed over."""
    return column is not None and (column.kind == "struct" or (column.kind == "bytes" and column.name in _OF_BYTES))


def file_named(text: str, shard: str, name: str) -> Path:
    """Return the file that a table's row names; it must lie below the table's folder.

    Raises:
        ImageError: the file lies elsewhere, or is at a URL that is not fetched.
    """
    folder = os.path.dirname(shard)
    if "://" in text:
        parts = urlsplit(text)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
            raise ImageError("unsupported", name, f"is at '{text}': only files are read, and nothing is fetched")
        text = unquote(parts.path)
    if ".." in Path(text).parts or "\0" in text:
        raise ImageError("bad_name", name, f"names '{text}', which leads out of the folder of its table")
    whole = os.path.join(folder, text)
    if not os.path.normpath(whole).startswith(os.path.join(folder, "")):
        raise ImageError("bad_name", name, f"names '{text}', which does not lie below {folder}, its table's folder")
    return Path(whole)


def _has_bytes(kind: pa.StructType) -> bool:
    return any(field.name == "bytes" and _is_binary(field.type) for field in kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _first(names: Sequence[str], preferred: Sequence[str]) -> str:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in preferred if name in lower), "")
