"""Time reading tensors of random images, cold and warm, against one thread that reads the same bytes with preadv."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from index_store.tensors.attention import AttentionWriter, StoredRow, read_rows
from tests.bench.timing import Row, in_turns

SHAPE = (2, 8, 256, 160)  # one SD 1.5 image, layer U_0: 1.3 MB an array
IMAGES = 200
WANTED = 100
NOT_MEASURED, IN_MEMORY = "not measured", "files are in memory here: set TMPDIR to a folder on a disk"


def read_plainly(files: Sequence[tuple[int, Sequence[int]]], size: int) -> None:
    """Read one row at each offset of each descriptor, each into its own memory."""
    memory = np.empty((sum(len(offsets) for _, offsets in files), size), np.uint8)
    places = iter(memory)
    for descriptor, offsets in files:
        for offset in offsets:
            os.preadv(descriptor, [next(places).data], offset)


def can_forget(folder: Path, mounts: str | None = None) -> bool:
    """Return whether files of ``folder`` can leave the page cache; files on tmpfs cannot (Linux)."""
    listed = (Path("/proc/mounts").read_text("utf-8") if mounts is None else mounts).splitlines()
    kinds = {Path(place): kind for place, kind in (line.split()[1:3] for line in listed)}  # of one place, the last
    place = folder.resolve()
    return next(kinds[at] for at in (place, *place.parents) if at in kinds) not in ("tmpfs", "ramfs")


def forget(folder: Path) -> None:
    """Drop the folder's files from the page cache; see :func:`can_forget`."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def reads(folder: Path) -> list[Row]:
    """Time both ways, warm and cold."""
    group = folder / "reads.zarr"
    writer = AttentionWriter(group, dict.fromkeys("qkv", SHAPE))
    generator = np.random.default_rng(0)
    for _ in range(IMAGES):
        rows = {name: generator.standard_normal((1, *SHAPE), dtype=np.float32).astype(np.float16) for name in "qkv"}
        writer.append(rows)
    record = writer.close()
    wanted = np.random.default_rng(1).permutation(IMAGES)[:WANTED].tolist()
    places = [StoredRow(group, record, row) for row in wanted]
    size = 2 * int(np.prod(SHAPE)) + 4
    by_shard: dict[Path, list[int]] = {}
    for row in wanted:
        for name in "qkv":
            shard = group / name / "c" / str(row // record.shard_rows) / "0/0/0/0"
            by_shard.setdefault(shard, []).append(size * (row % record.shard_rows))
    opened = [(os.open(path, os.O_RDONLY), offsets) for path, offsets in by_shard.items()]

    def cold(read: object) -> None:
        forget(group)
        assert callable(read)
        read()

    def ours() -> None:
        read_rows(places)

    def plainly() -> None:
        read_plainly(opened, size)

    rows_found: list[Row] = []
    warm = in_turns({"ours": ours, "plain": plainly}, rounds=5)
    measured = [("warm", warm, 0.0)]
    if can_forget(group):
        forgetting = in_turns({"forget": lambda: forget(group)}, rounds=5)["forget"]
        cool = in_turns({"ours": lambda: cold(ours), "plain": lambda: cold(plainly)}, rounds=3)
        measured.append(("cold", cool, forgetting))
    what = f"read {WANTED} random SD 1.5 images' tensors"
    for name, times, beside in measured:
        mine, theirs = times["ours"] - beside, times["plain"] - beside
        note = f"preadv {theirs:.0f} ms: {mine / theirs:.2f} x"
        rows_found.append((f"{what}, {name}", f"{mine:.0f} ms", note))
    if len(measured) == 1:
        rows_found.append((f"{what}, cold", NOT_MEASURED, IN_MEMORY))
    for descriptor, _ in opened:
        os.close(descriptor)
    return rows_found
