"""Small images and quick settings for an index, and the contents of an index to compare with another."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image

from index_store.catalog import Item, Reject
from index_store.generation import Generation
from index_store.reader import IndexReader
from retrieval.settings import BuildSettings

RUN = BuildSettings(device="cpu", batch_size=2, workers=1, segment_rows=4)


def paint(folder: Path, names: Iterable[str | int], seed: int = 0, black: int = 0) -> list[Path]:
    """Write one PNG for each name: coarse noise that depends on name and seed, 64 to 96 pixels wide.

    So many of the three rows from the top are ``black``: tensors that are partly zeros are stored compressed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / (f"{name:03d}.png" if isinstance(name, int) else name) for name in names]
    for path in paths:
        digest = hashlib.sha256(f"{seed}/{path.name}".encode()).digest()
        coarse = np.frombuffer(digest[:27], np.uint8).reshape(3, 3, 3).copy()
        coarse[:black] = 0
        size = (64 + digest[30] % 33, 64 + digest[31] % 33)
        Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST).save(path, "PNG")
    return paths


@dataclass(frozen=True)
class Contents:
    """The contents of an index, bit by bit, without its division into segments."""

    items: list[Item]
    rejects: list[Reject]
    vectors: dict[str, list[bytes]]
    tensors: dict[str, list[bytes]]  # by mode and array

    @classmethod
    def of(cls, index: Path, generation: Generation | None = None) -> "Contents":
        """Read the whole index, which verifies every checksum."""
        reader = IndexReader(index, generation)
        rows = range(len(reader))
        tensors: dict[str, list[bytes]] = {}
        for mode in reader.generation.modes if rows else ():
            for name, array in reader.attention(mode, rows).items():
                tensors[f"{mode}/{name}"] = [row.tobytes() for row in array]
        vectors = {name: [row.tobytes() for row in reader.vectors(name)] for name in reader.generation.encoders}
        rejects = sorted(reader.rejects(), key=lambda reject: reject.uri)
        return cls(reader.items(), rejects, vectors, tensors)

    def differences(self, other: "Contents") -> list[str]:
        """Name the fields that differ, which is shorter than printing both."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]

    def first(self, count: int) -> "Contents":
        """Return the contents of an index of the first ``count`` items, without rejects."""

        def cut(arrays: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
            return {name: rows[:count] for name, rows in arrays.items()} if count else {}

        vectors = {name: rows[:count] for name, rows in self.vectors.items()}
        return Contents(self.items[:count], [], vectors, cut(self.tensors))
