"""The items of an opened index, for people who browse it; only files that the catalogue names are read."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index_store.catalog import Item
from index_store.generation import read_current_name
from index_store.layout import Layout
from index_store.lookup import ID_PREFIX, MAX_ID
from index_store.reader import IndexReader
from index_store.remote.object_store import is_url
from index_store.remote.pull import existing_root
from index_store.row_locations import batched
from retrieval.encoding.recipe import Recipe
from retrieval.errors import ImageError, UsageError
from retrieval.images.decoding import DecodeRules, decode_bytes
from retrieval.images.file_bytes import read_bytes
from retrieval.images.formats import sniff
from retrieval.models.registry import unknown_mode
from retrieval.search.browsing.projection import project
from retrieval.search.candidates import CandidateGenerator
from retrieval.search.index_info import about_index
from retrieval.search.text.encoders import encoders_with_text

__all__ = ["Catalogue", "Item"]

ITEMS_AT_ONCE = 4096  # whose paths are in memory together
CHANGED = "is another file than the one that was indexed"


class Catalogue:
    """The items of one generation, in the order of their ids; safe in many threads."""

    def __init__(self, reader: IndexReader, recipe: Recipe, generator: CandidateGenerator) -> None:
        self._reader, self._recipe, self._generator = reader, recipe, generator

    @property
    def reader(self) -> IndexReader:
        """The opened index, for functions of the library that take one."""
        return self._reader

    @property
    def generation(self) -> int:
        """The number of the generation that was opened."""
        return self._reader.generation.number

    @property
    def encoders(self) -> tuple[str, ...]:
        """The encoders that the index has vectors of."""
        return self._reader.generation.encoders

    @property
    def has_text(self) -> bool:
        """Whether an encoder of the index reads texts."""
        return bool(encoders_with_text(self._reader))

    @property
    def ids(self) -> NDArray[np.int64]:
        """The items' ids, ascending, int64 ``[items]``."""
        return self._reader.ids

    def paths(self) -> Iterator[tuple[int, str]]:
        """Yield id and path of every item, in the order of the ids; they are read as they are taken."""
        for rows in batched(np.arange(len(self._reader)), ITEMS_AT_ONCE):
            yield from zip(self._reader.ids[rows].tolist(), self._reader.uris(rows), strict=True)

    def about(self) -> dict[str, Any]:
        """Return the short description that stands in every result, as JSON values."""
        return about_index(self._reader, self._recipe)

    def __len__(self) -> int:
        return len(self._reader)

    def map(self, mode: str) -> NDArray[np.float32]:
        """Return the places of all items in a plane; see :func:`retrieval.search.browsing.projection.project`.

        Raises:
            UsageError: a mode that the index does not have, or an index without vectors.
        """
        if mode not in self._recipe.targets:
            raise unknown_mode(mode, "this index", tuple(self._recipe.targets))
        return project(self._reader, self._generator.encoders(mode))

    def page(self, first: int, count: int) -> list[Item]:
        """Return ``count`` items from position ``first`` on; fewer at the end."""
        end = min(first + count, len(self))
        return self._reader.items(range(min(first, end), end))

    def item(self, number: int) -> Item | None:
        """Return the item with an id; None: there is none."""
        found = self.some([number]) if 0 <= number <= MAX_ID else []
        return found[0] if found else None

    def some(self, numbers: Sequence[int]) -> list[Item]:
        """Return the items with these ids, in that order; ids that no item has are left out."""
        wanted = np.array(numbers, np.int64)
        rows = np.minimum(np.searchsorted(self.ids, wanted), max(0, len(self) - 1))
        return self._reader.items(rows[self.ids[rows] == wanted] if len(self) else [])

    def named(self, text: str, most: int) -> list[Item]:
        """Return up to ``most`` items that ``text`` means: ``id:N``, a whole path, or the end of paths after a ``/``.

        Unlike :func:`index_store.lookup.find_rows`, it never looks at the files or the working folder.
        """
        if text.startswith(ID_PREFIX) and text.removeprefix(ID_PREFIX).isdecimal():
            found = self.item(int(text.removeprefix(ID_PREFIX)))
            return [] if found is None else [found]
        rows = self._reader.find("uri", text) or (self._reader.catalog.find_suffix(text) if text.strip("/") else [])
        return self._reader.items(rows[:most])

    def one(self, text: str) -> Item:
        """Return the one item that ``text`` means; see :meth:`named`.

        Raises:
            UsageError: no item, or several; the message lists some.
        """
        found = self.named(text, 4)
        if not found:
            raise UsageError(f"{text}: no item of the index has that name")
        if len(found) > 1:
            some = ", ".join(f"{ID_PREFIX}{item.id} {item.uri}" for item in found[:3])
            raise UsageError(f"{text} fits several items of the index; name one of them: {some}")
        return found[0]


def newest_generation(index: str | Path) -> int:
    """Return the number of an index's newest generation; of a URL, the store is asked.

    Raises:
        IndexNotFoundError, IndexCorruptError, RemoteStoreError: the index is gone, damaged or out of reach.
    """
    return int(Path(read_current_name(Layout(existing_root(index)))).stem)


def is_remote(index: str | Path) -> bool:
    """Say whether an index lies in an object store."""
    return is_url(str(index))


def original(item: Item) -> tuple[bytes, str]:
    """Return the bytes of an item's file, and the name of their format, such as ``JPEG``.

    Raises:
        ImageError: the file can't be read, or it is another one than was indexed.
    """
    data, _ = read_bytes(Path(item.uri))
    kind = sniff(data)
    if kind is None or hashlib.sha256(data).hexdigest() != item.sha256:
        raise ImageError("vanished", item.uri, CHANGED)
    return data, kind


def thumbnail(item: Item, side: int, max_pixels: int) -> Image.Image:
    """Return an item's picture, RGB, with ``side`` px at most on its longer side.

    Raises:
        ImageError: the file can't be read, or it is another one than was indexed.
    """
    data, _ = original(item)
    return shrunk(data, item.uri, side, max_pixels)


def shrunk(data: bytes, name: str, side: int, max_pixels: int) -> Image.Image:
    """Return the picture in a file's bytes, RGB, with ``side`` px at most; an ImageError calls it ``name``."""
    picture, _ = decode_bytes(data, name, DecodeRules(draft=side, max_pixels=max_pixels))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture
