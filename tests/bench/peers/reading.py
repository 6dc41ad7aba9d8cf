"""Reads: 200 random images' tensors by our reader, and by libraries that read the same Zarr files or their own.

zarr-python, zarrs and tensorstore read the very shards that our writer made; LanceDB has a table of the same bytes.
All read batches as large as those of a search, and keep none of them. Processor time is told beside the clock's,
because several threads of one reader push other programs aside.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from index_store.tensors.attention import AttentionWriter, StoredRow, read_rows
from retrieval.devices.precision import SCORING_PRECISION
from tests.bench.peers.tables import Spread, installed, keep
from tests.bench.reads import can_forget, forget

SHAPE, WANTED = (2, 8, 256, 160), 200  # an array of one SD 1.5 image, layer U_0: 1.3 MB
IMAGE_BYTES = 3 * 2 * int(np.prod(SHAPE))
COLUMNS = ("reader", "warm, ms", "cold, ms", "warm, processor ms", "warm, times ours", "cold, times ours")
Read = Callable[[Sequence[int]], Any]
Open = Callable[[], Read]
"""Opens the tensors; the result reads some rows."""


def write(folder: Path, images: int) -> StoredRow:
    """Write Q, K and V of ``images``; return the place of the first."""
    writer, random = AttentionWriter(folder, dict.fromkeys("qkv", SHAPE)), np.random.default_rng(0)
    for _ in range(images):
        block = random.standard_normal((1, *SHAPE), dtype=np.float32).astype(np.float16)
        writer.append(dict.fromkeys("qkv", block))
    return StoredRow(folder, writer.close(), 0)


def _ours(first: StoredRow) -> Open:
    return lambda: lambda rows: read_rows(StoredRow(first.group, first.record, row) for row in rows)


def _zarr(folder: Path) -> Open:
    def opened() -> Read:
        import zarr

        group = zarr.open_group(folder, mode="r")
        arrays: list[Any] = [group[name] for name in "qkv"]
        return lambda rows: [array[row] for row in rows for array in arrays]

    return opened


def _zarrs(folder: Path) -> Open:
    import zarr

    def opened() -> Read:
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            return _zarr(folder)()

    return opened


def _tensorstore(folder: Path) -> Open:
    import tensorstore

    def opened() -> Read:
        stores = [{"driver": "file", "path": str(folder / name)} for name in "qkv"]
        specs = [{"driver": "zarr3", "kvstore": store} for store in stores]
        arrays = [tensorstore.open(spec, open=True, read=True).result() for spec in specs]
        return lambda rows: [each.result() for each in [array[row].read() for row in rows for array in arrays]]

    return opened


def _lance(folder: Path, images: int) -> Open:
    import lancedb
    import pyarrow as pa

    schema = pa.schema([(name, pa.large_binary()) for name in "qkv"])

    def batches() -> Iterator[Any]:
        random = np.random.default_rng(0)
        for _ in range(images):
            block = random.standard_normal(SHAPE, dtype=np.float32).astype(np.float16).tobytes()
            yield pa.record_batch([pa.array([block], pa.large_binary())] * 3, schema=schema)

    lancedb.connect(folder).create_table("tensors", batches(), schema=schema)

    def opened() -> Read:
        table = lancedb.connect(folder).open_table("tensors")
        return lambda rows: table.take_offsets(list(rows)).to_arrow()

    return opened


def run(quick: bool, out: Path, work: Path, rounds: int) -> None:
    """Measure all readers, warm and, where the page cache can be emptied, cold."""
    images = 64 if quick else 2 * WANTED
    wanted = np.random.default_rng(1).permutation(images)[: images // 2].tolist()
    first = write(work / "ours.zarr", images)
    readers = {"ours": _ours(first), "zarr-python": _zarr(work / "ours.zarr")}
    if installed("zarrs"):
        readers["zarrs"] = _zarrs(work / "ours.zarr")
    if installed("tensorstore"):
        readers["tensorstore"] = _tensorstore(work / "ours.zarr")
    if installed("lancedb"):
        readers["lance"] = _lance(work / "lance", images)
    warm, processor = _times(readers, wanted, rounds)
    cold = _times(readers, wanted, rounds, work)[0] if can_forget(work) else {}
    rows = [
        {
            "reader": name,
            "warm, ms": warm[name],
            "cold, ms": cold.get(name),
            "warm, processor ms": processor[name],
            "warm, times ours": warm[name].median / warm["ours"].median,
            "cold, times ours": cold[name].median / cold["ours"].median if cold else None,
        }
        for name in readers
    ]
    keep(out, "reads", COLUMNS, rows, images=len(wanted), of=images, bytes_an_image=IMAGE_BYTES)


def _times(
    readers: Mapping[str, Open], wanted: Sequence[int], rounds: int, cold: Path | None = None
) -> tuple[dict[str, Spread], dict[str, Spread]]:
    """Read all rows by each reader in turns; return milliseconds by the clock and of the processor.

    The first round warms up. With a folder ``cold``, its files leave the page cache before each run, outside the clock.
    """
    step = SCORING_PRECISION["cpu"].chunk_bytes // IMAGE_BYTES
    batches = [wanted[start : start + step] for start in range(0, len(wanted), step)]
    clock: dict[str, list[float]] = {name: [] for name in readers}
    processor: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(rounds + 1):
        for name, opened in readers.items():
            if cold is not None:
                forget(cold)
            before, start = time.process_time(), time.perf_counter()
            read = opened()
            for rows in batches:
                read(rows)
            if number:
                clock[name].append(1e3 * (time.perf_counter() - start))
                processor[name].append(1e3 * (time.process_time() - before))
    spreads = [{name: Spread.of(values) for name, values in times.items()} for times in (clock, processor)]
    return spreads[0], spreads[1]
