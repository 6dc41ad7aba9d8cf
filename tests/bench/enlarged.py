"""Enlarge a small real index to many items: the result is quick to write, and real in every other respect.

The first images are drawn and indexed with an embedded model. Every further item copies one of them: its file is a
hard link, its vector lies near the original, and its tensors hold the original tokens in another order. Segments are
written and committed as in a build.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index_store.catalog import Item
from index_store.catalog_files.rows import UNKNOWN
from index_store.codecs import Codec, find_codec
from index_store.commit import commit
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.segment_writer import SegmentWriter
from index_store.vectors.training import train_where_due
from retrieval import BuildSettings, build_index
from retrieval.sample_images.pictures import gallery

DRAWN = 128
NEW = 100
SIDE = 256
MODE = "style"
SEGMENT_ROWS = BuildSettings().segment_rows
BATCH = 256
NEARNESS = 0.3  # length of the noise on a vector of length 1
CPU = BuildSettings(device="cpu")


def write(folder: Path, items: int, model: str = "cells", codec: str | None = None) -> Path:
    """Make ``folder/photos``, ``folder/new`` (100 images that are not in the index) and the index of so many items."""
    folder = folder.absolute()  # as the index names files
    photos, index = folder / "photos", folder / "photos.diffsim"
    drawn = _draw(photos / "000000", DRAWN)
    _mirror(drawn, folder / "new")
    build_index(photos, index, model=model, modes=[MODE], codec=codec, run=CPU)
    reader = IndexReader(index)
    (encoder,) = reader.generation.encoders
    vectors, tensors = reader.vectors(encoder), reader.attention(MODE, range(len(drawn)))
    known, generation = reader.items(), reader.generation
    generator = np.random.default_rng(0)
    while generation.next_id < items:
        count = min(SEGMENT_ROWS, items - generation.next_id)
        writer = SegmentWriter(Layout(index), f"{generation.number + 1:06d}", reader.codec, reader.sources.all)
        for start in range(0, count, BATCH):
            ids = range(generation.next_id + start, generation.next_id + min(start + BATCH, count))
            chosen = generator.integers(0, len(drawn), len(ids))
            rows = [_linked(photos, number, known[like]) for number, like in zip(ids, chosen.tolist(), strict=True)]
            near = vectors[chosen] + NEARNESS * directions(generator, len(ids), vectors.shape[1])
            writer.append(
                rows, [], {encoder: near}, {MODE: shuffled_tokens(tensors, find_codec(reader.codec), chosen, generator)}
            )
        grown = replace(generation, segments=(*generation.segments, writer.finish()))
        generation = commit(Layout(index), replace(grown, next_id=generation.next_id + count), "tests")
    build_index(photos, index, run=CPU)  # notes the ctime of the drawn images, which have links now
    train_where_due(IndexReader(index).vector_reader)
    return index


def _draw(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True)
    paths = [folder / f"{number:06d}.jpg" for number in range(count)]
    for path, drawn in zip(paths, gallery(SIDE), strict=False):
        Image.fromarray(drawn.pixels).save(path)
    return paths


def _mirror(drawn: list[Path], folder: Path) -> None:
    """Write mirrored copies of the drawn images: new files of the same kind."""
    folder.mkdir()
    for path in drawn[:NEW]:
        with Image.open(path) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / path.name)


def _linked(photos: Path, number: int, like: Item) -> Item:
    """Link the file of another item into ``photos`` under a new name, a thousand files in each folder."""
    path = photos / f"{1 + number // 1000:06d}" / f"{number:09d}.jpg"
    path.parent.mkdir(exist_ok=True)
    os.link(like.uri, path)
    return replace(like, id=number, uri=str(path), ctime_ns=UNKNOWN)  # each further link changes the file's ctime


def directions(generator: np.random.Generator, count: int, dim: int) -> NDArray[np.float32]:
    noise = generator.standard_normal((count, dim), dtype=np.float32)
    unit: NDArray[np.float32] = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return unit


def shuffled_tokens(
    tensors: Mapping[str, NDArray[Any]], codec: Codec, chosen: NDArray[np.int64], generator: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Return the tensors of ``chosen``; the tokens of each item are in a random order."""
    axis = {array.name: array.axes.index("tokens") + 1 for array in codec.arrays if "tokens" in array.axes}
    count = next(tensors[name].shape[at] for name, at in axis.items())
    order = generator.permuted(np.tile(np.arange(count), (len(chosen), 1)), axis=1)

    def shuffled(name: str, array: NDArray[Any]) -> NDArray[Any]:
        if name not in axis:
            return array[chosen]
        tokens = order.reshape(len(chosen), *(1,) * (axis[name] - 1), count, *(1,) * (array.ndim - axis[name] - 1))
        return np.take_along_axis(array[chosen], tokens, axis=axis[name])

    return {name: shuffled(name, array) for name, array in tensors.items()}
