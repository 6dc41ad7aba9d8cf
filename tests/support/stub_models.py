"""Images and a model of a few numbers, so that a real build takes milliseconds; and what is in an index, to compare."""

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from index_store.catalog import Item, Reject
from index_store.codecs import find_codec
from index_store.generation import Generation
from index_store.reader import IndexReader
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.images.decoding import DecodeRules
from retrieval.images.preprocessing import resize_square
from retrieval.models.modes import Target
from retrieval.models.projection import LinearProjection
from retrieval.models.protocols import Pixels
from retrieval.scoring.aas import QKV
from retrieval.settings import BuildSettings, ModelSettings
from retrieval.types import Role

RUN = BuildSettings(device="cpu", batch_size=2, workers=1, segment_rows=4)
ROW_SHAPE = (1, 2, 12, 8)


def paint(folder: Path, names: Iterable[str | int], seed: int = 0) -> list[Path]:
    """Write one PNG a name: coarse coloured noise, different for every name and seed, 64 to 96 pixels wide."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / (f"{name:03d}.png" if isinstance(name, int) else name) for name in names]
    for path in paths:
        digest = hashlib.sha256(f"{seed}/{path.name}".encode()).digest()
        coarse = np.frombuffer(digest[:27], np.uint8).reshape(3, 3, 3)
        size = (64 + digest[30] % 33, 64 + digest[31] % 33)
        Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST).save(path, "PNG")
    return paths


class TinyExtractor:
    """An AttentionExtractor: Q, K and V are the pixels themselves, in three ways."""

    def prepare(self, image: Image.Image) -> Pixels:
        return resize_square(image, 8)

    def extract(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, QKV]:
        q = torch.tensor(pixels).float().reshape(-1, *ROW_SHAPE) / 255
        return {target: QKV(q, q.flip(-1) + target.timestep / 100, 1 - q) for target in targets}

    def hidden(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, torch.Tensor]:
        """Another layer than that of Q, K and V: twelve tokens of sixteen pixels."""
        hidden = torch.tensor(pixels).float().reshape(-1, *self.hidden_shape(targets[0])) / 255
        return dict.fromkeys(targets, hidden)

    def projection(self, target: Target) -> LinearProjection:
        weights = torch.randn(3, 2, 8, 16, generator=torch.Generator().manual_seed(target.timestep))
        return LinearProjection((weights[0], weights[1], weights[2]))

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        return 1, 12, 16

    def fingerprint(self) -> dict[str, Any]:
        return {"name": "tiny"}


class TinyEmbedder:
    """An Embedder: the image in 4 x 4 pixels; those named otherwise see it darker."""

    def __init__(self, name: str = "descriptor") -> None:
        self.name = name

    def prepare(self, image: Image.Image) -> Pixels:
        return resize_square(image, 4)

    def embed(self, pixels: Pixels) -> NDArray[np.float32]:
        rows = pixels.reshape(len(pixels), -1).astype(np.float32) ** (1 + (self.name != "descriptor")) + 1
        vectors: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return vectors

    def fingerprint(self) -> dict[str, Any]:
        return {"name": f"tiny {self.name}"}


def load_tiny(settings: ModelSettings, targets: Mapping[str, Target], device: str, offline: bool) -> LoadedModels:
    """Stand in for :func:`retrieval.encoding.loaded_models.load_models`."""
    codec = find_codec(settings.codec)
    embedders = {name: TinyEmbedder(name) for name in settings.encoders or {}}
    return LoadedModels(TinyExtractor(), embedders, DecodeRules(), targets, codec)


@contextmanager
def tiny_model() -> Iterator[None]:
    """Build and search with the tiny model in place of the one asked for."""
    from retrieval.indexing.build import build_index
    from retrieval.indexing.dry_run import plan_build
    from retrieval.indexing.fill import fill_index

    with ExitStack() as patches:
        for function in (build_index, plan_build, fill_index):
            patches.enter_context(mock.patch.dict(function.__kwdefaults__, {"load": load_tiny}))
        patches.enter_context(mock.patch("retrieval.search.engine.load_models", load_tiny))
        yield


@dataclass(frozen=True)
class Contents:
    """Everything that an index says, bit by bit; how it is cut into segments does not matter."""

    items: list[Item]
    rejects: list[Reject]
    vectors: dict[str, list[bytes]]
    tensors: dict[str, list[bytes]]  # by mode and array

    @classmethod
    def of(cls, index: Path, generation: Generation | None = None) -> "Contents":
        """Read all of it, so that every checksum is verified."""
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
        """Name the fields that differ: shorter than a dump of both."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]

    def first(self, count: int) -> "Contents":
        """Return what an index of the first ``count`` items says; rejects are left out."""

        def cut(arrays: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
            return {name: rows[:count] for name, rows in arrays.items()} if count else {}

        vectors = {name: rows[:count] for name, rows in self.vectors.items()}
        return Contents(self.items[:count], [], vectors, cut(self.tensors))


class Operations:
    """Count what is done to the disk below ``root``, and call ``act`` in place of the n-th operation."""

    def __init__(
        self, root: Path, number: int, act: Callable[[], object], *, only_main: bool = False, only_durable: bool = False
    ) -> None:
        """Count those of all threads or the main one, and all kinds or just flushing and replacing.

        In the latter case flushes in a row are one, since nothing that a killed process leaves changes between them.
        """
        self.count = 0
        self._last = ""
        self._root, self._number, self._act = str(root), number, act
        self._only_main, self._only_durable = only_main, only_durable

    def _step(self, kind: str, path: object) -> None:
        if not str(path).startswith(self._root):
            return
        if self._only_main and threading.current_thread() is not threading.main_thread():
            return
        last, self._last = self._last, kind
        if self._only_durable and (kind not in ("fsync", "replace") or kind == last == "fsync"):
            return
        self.count += 1
        if self.count == self._number:
            self._act()

    def _watch(self, kind: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def watched(path: Any, *rest: Any, **options: Any) -> Any:
            self._step(kind, path)
            return operation(path, *rest, **options)

        return watched

    @contextmanager
    def watched(self) -> Iterator[Self]:
        """Watch every way in which the index's files and folders come, change and go. Nothing is really flushed."""
        own_open, own_parquet = io.open, pq.write_table

        def watched_open(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            if mode.startswith(("w", "x", "a")):
                self._step("open", path)
            return own_open(path, mode, *rest, **options)

        def watched_parquet(table: Any, path: Any, **options: Any) -> None:
            self._step("open", path)
            own_parquet(table, path, **options)

        def watched_fsync(descriptor: int) -> None:
            self._step("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))

        with ExitStack() as patches:
            patches.enter_context(mock.patch("io.open", watched_open))
            patches.enter_context(mock.patch("pyarrow.parquet.write_table", watched_parquet))
            patches.enter_context(mock.patch("os.fsync", watched_fsync))
            for kind in ("mkdir", "replace", "unlink", "rmdir"):
                patches.enter_context(mock.patch(f"os.{kind}", self._watch(kind, getattr(os, kind))))
            yield self


def flip_bit(path: Path, bit: int) -> None:
    """Turn one bit of a file over."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
