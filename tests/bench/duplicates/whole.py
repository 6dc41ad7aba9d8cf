"""`python -m tests.bench.duplicates.whole [--items 100000]`: `diffsim-index duplicates` from its start to its end.

Every item is a picture of its own: a field of colours drawn from its number. One in 20 copies the picture before it,
as JPEG of quality 30. Vectors lie around the means of two drawn pictures' own, and so do tensors.
100,000 items take 5 GB of disk: 3.2 GB of tensors of `mini`, the rest for files of 10 kB.
"""

import argparse
import hashlib
import io
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from retrieval import build_index
from retrieval.grouping.duplicates import find_duplicates
from retrieval.grouping.results import Duplicates
from retrieval.sample_images.pictures import gallery
from tests.bench.enlarged import BATCH, CPU, SEGMENT_ROWS, directions, shuffled_tokens
from tests.bench.timing import peak_memory

DRAWN, MODE = 128, "instance"
COPY_EACH = 20  # one item in so many is a copy of the one before it
APART, NEAR = 0.8, 0.1  # length of the noise on a vector of length 1: of a picture, and of a copy
SIZE, CELLS = (320, 240), (16, 12)


def write(folder: Path, items: int) -> Path:
    """Write the pictures and the index of so many items, and return the index."""
    photos, index = folder / "photos", folder / "photos.diffsim"
    (photos / "drawn").mkdir(parents=True)
    for number, drawn in zip(range(DRAWN), gallery(SIZE[1]), strict=False):
        Image.fromarray(drawn.pixels).save(photos / "drawn" / f"{number:04d}.png")
    build_index(photos, index, model="mini", modes=[MODE], run=CPU)
    reader = IndexReader(index)
    codec = find_codec(reader.codec)
    (encoder,) = reader.generation.encoders
    vectors, tensors = reader.vectors(encoder), reader.attention(MODE, range(DRAWN))
    like, generation, random = reader.items()[0], reader.generation, np.random.default_rng(0)
    while generation.next_id < items:
        count = min(SEGMENT_ROWS, items - generation.next_id)
        writer = SegmentWriter(Layout(index), f"{generation.number + 1:06d}", reader.codec, reader.sources.all)
        for start in range(0, count, BATCH):
            ids = range(generation.next_id + start, generation.next_id + min(start + BATCH, count))
            near, own = _batch(ids, vectors, tensors, codec, random)
            writer.append([_item(photos, number, like) for number in ids], [], {encoder: near}, {MODE: own})
        grown = replace(generation, segments=(*generation.segments, writer.finish()))
        generation = commit(Layout(index), replace(grown, next_id=generation.next_id + count), "tests")
    train_where_due(IndexReader(index).vector_reader)
    return index


def is_copy(number: int) -> bool:
    """Say whether an item copies the one before it, which is in its batch."""
    return number % COPY_EACH == 1


def _batch(
    ids: range, vectors: NDArray[Any], tensors: Any, codec: Codec, random: np.random.Generator
) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
    """Return vectors and tensors of items; a copy has those of the item before it, but for a little noise."""
    first, second = random.integers(0, len(vectors), (2, len(ids)))
    near = (vectors[first] + vectors[second]).astype(np.float32) / 2
    near += APART * directions(random, len(ids), vectors.shape[1])
    halves = shuffled_tokens(tensors, codec, first, random), shuffled_tokens(tensors, codec, second, random)
    own = {name: array / 2 + halves[1][name] / 2 for name, array in halves[0].items()}  # of floats
    copies = [place for place, number in enumerate(ids) if place and is_copy(number)]
    before = [place - 1 for place in copies]
    near[copies] = near[before] + NEAR * directions(random, len(copies), vectors.shape[1])
    for array in own.values():
        array[copies] = array[before]
    return near / np.linalg.norm(near, axis=1, keepdims=True), own


def _item(photos: Path, number: int, like: Item) -> Item:
    shown = number - 1 if is_copy(number) else number
    colours = np.random.default_rng(shown).integers(0, 255, (CELLS[1], CELLS[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).resize(SIZE, Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=30 if shown < number else 85
    )
    path = photos / f"{number // 1000:06d}" / f"{number:09d}.jpg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(buffer.getvalue())
    facts: dict[str, Any] = {
        "uri": str(path),
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "size": len(buffer.getvalue()),
    }
    return replace(like, id=number, width=SIZE[0], height=SIZE[1], ctime_ns=UNKNOWN, **facts)


def report(found: Duplicates, items: int) -> tuple[float, int]:
    """Return the share of copies that are in the group of their picture, and how many pairs are wrong."""
    pairs = {
        (Path(group.kept.path).stem, Path(member.path).stem)
        for group in found.groups
        if group.level == "same"
        for member in group.members[1:]
    }
    made = [number for number in range(DRAWN + 1, items) if is_copy(number)]
    right = {frozenset((f"{number - 1:09d}", f"{number:09d}")) for number in made}
    hits = [pair for pair in map(frozenset, pairs) if pair in right]
    return len(hits) / max(1, len(made)), len(pairs) - len(hits)


def main() -> None:
    """Write an index, find its copies, and print a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    items = parser.parse_args().items
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        index = write(Path(scratch), items)
        print(f"wrote {items} items in {time.perf_counter() - start:.0f} s", flush=True)
        start, before = time.process_time(), time.perf_counter()
        found = find_duplicates(index)
        spent, wall = time.process_time() - start, time.perf_counter() - before
    recall, wrong = report(found, items)
    print(f"| {items} | {spent:.0f} s | {wall:.0f} s | {100 * recall:.1f} % | {wrong} | {peak_memory() / 1e6:.0f} MB |")
    print(", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in found.timing_s.items()))


if __name__ == "__main__":
    main()
