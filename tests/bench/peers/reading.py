"""Reads: 200 random images' tensors by our reader, and by libraries that read the same Zarr files or their own.

zarr-python, zarrs and tensorstore read the very shards that our writer made; LanceDB has a table of the same bytes.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from index_store.tensors.attention import AttentionWriter, StoredRow, read_rows
from tests.bench.peers.tables import installed, interleaved, keep
from tests.bench.reads import can_forget, forget

SHAPE, WANTED = (2, 8, 256, 160), 200  # an array of one SD 1.5 image, layer U_0: 1.3 MB
COLUMNS = ("reader", "warm, ms", "cold, ms", "warm, times ours", "cold, times ours")
Read = Callable[[], Any]


def write(folder: Path, images: int) -> StoredRow:
    """Write Q, K and V of ``images``; return the place of the first."""
    writer, random = AttentionWriter(folder, dict.fromkeys("qkv", SHAPE)), np.random.default_rng(0)
    for _ in range(images):
        block = random.standard_normal((1, *SHAPE), dtype=np.float32).astype(np.float16)
        writer.append(dict.fromkeys("qkv", block))
    return StoredRow(folder, writer.close(), 0)


def _zarr(folder: Path, wanted: list[int]) -> Read:
    def read() -> Any:
        import zarr

        group = zarr.open_group(folder, mode="r")
        return [group[name][row] for row in wanted for name in "qkv"]

    return read


def _zarrs(folder: Path, wanted: list[int]) -> Read:
    import zarr

    read = _zarr(folder, wanted)

    def with_zarrs() -> Any:
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            return read()

    return with_zarrs


def _tensorstore(folder: Path, wanted: list[int]) -> Read:
    import tensorstore

    def read() -> Any:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": ""}}
        opened = []
        for name in "qkv":
            spec["kvstore"] = {"driver": "file", "path": str(folder / name)}
            opened.append(tensorstore.open(spec, open=True, read=True).result())
        return [future.result() for future in [array[row].read() for row in wanted for array in opened]]

    return read


def _lance(folder: Path, images: int, wanted: list[int]) -> Read:
    import lancedb
    import pyarrow as pa

    schema = pa.schema([(name, pa.large_binary()) for name in "qkv"])

    def batches() -> Iterator[Any]:
        random = np.random.default_rng(0)
        for _ in range(images):
            block = random.standard_normal(SHAPE, dtype=np.float32).astype(np.float16).tobytes()
            yield pa.record_batch([pa.array([block], pa.large_binary())] * 3, schema=schema)

    lancedb.connect(folder).create_table("tensors", batches(), schema=schema)

    def read() -> Any:
        return lancedb.connect(folder).open_table("tensors").take_offsets(wanted).to_arrow()

    return read


def run(quick: bool, out: Path, work: Path, rounds: int) -> None:
    """Measure all readers, warm and, where the page cache can be emptied, cold."""
    images = 64 if quick else 400
    wanted = np.random.default_rng(1).permutation(images)[: images // 2].tolist()
    first = write(work / "ours.zarr", images)
    places = [StoredRow(first.group, first.record, row) for row in wanted]
    readers: dict[str, Read] = {"ours": lambda: read_rows(places), "zarr-python": _zarr(work / "ours.zarr", wanted)}
    if installed("zarrs"):
        readers["zarrs"] = _zarrs(work / "ours.zarr", wanted)
    if installed("tensorstore"):
        readers["tensorstore"] = _tensorstore(work / "ours.zarr", wanted)
    if installed("lancedb"):
        readers["lance"] = _lance(work / "lance", images, wanted)
    warm = interleaved(readers, rounds)
    cold: dict[str, Any] = {}
    if can_forget(work):
        cold = _cold(readers, work, rounds)
    keep(
        out,
        "reads",
        COLUMNS,
        [
            {
                "reader": name,
                "warm, ms": warm[name],
                "cold, ms": cold.get(name),
                "warm, times ours": warm[name].median / warm["ours"].median,
                "cold, times ours": cold[name].median / cold["ours"].median if cold else None,
            }
            for name in readers
        ],
        images=len(wanted),
        of=images,
        bytes_an_image=6 * int(np.prod(SHAPE)),
    )


def _cold(readers: dict[str, Read], work: Path, rounds: int) -> dict[str, Any]:
    """Read with an empty page cache: it is emptied before each run, outside the clock."""
    import time

    from tests.bench.peers.tables import Spread

    times: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, read in readers.items():
            forget(work)
            start = time.perf_counter()
            read()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: Spread.of(values) for name, values in times.items()}
