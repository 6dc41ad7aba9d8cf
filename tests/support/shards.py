"""Shards of images as their usual writers make them: tars, Parquet, and saved Hugging Face datasets."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 3  # of a group of rows, and of a batch of Arrow


def write_tar(path: Path, files: Sequence[Path], form: int = tarfile.PAX_FORMAT) -> Path:
    """Write a WebDataset: every image, and a text beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for file in files:
            tar.add(file, file.name)
            add_bytes(tar, f"{file.stem}.txt", b"a caption")
    return path


def add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a regular member to a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def image_structs(files: Sequence[Path]) -> pa.Table:
    """Return a table as the library datasets has it: a column of structs and one of labels."""
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"label": pa.array(range(len(files))), "image": pa.array(images, kind)})


def write_hub(path: Path, files: Sequence[Path]) -> Path:
    """Write a Parquet file in the layout of the hub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(image_structs(files), path, row_group_size=ROWS)
    return path


def write_bytes(path: Path, files: Sequence[Path]) -> Path:
    """Write a Parquet file with a binary column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"key": [file.stem for file in files], "jpg": pa.array([file.read_bytes() for file in files])})
    pq.write_table(table, path, row_group_size=ROWS, use_dictionary=False, write_page_checksum=True)
    return path


def write_names(path: Path, names: Sequence[str]) -> Path:
    """Write a Parquet file that names image files."""
    pq.write_table(pa.table({"uri": list(names)}), path)
    return path


def save_to_disk(folder: Path, files: Sequence[Path], shards: int = 2) -> Path:
    """Write a dataset as ``datasets.save_to_disk`` does: Arrow streams, and JSON files that describe them."""
    folder.mkdir(parents=True, exist_ok=True)
    each = -(-len(files) // shards)
    names = [f"data-{number:05d}-of-{shards:05d}.arrow" for number in range(shards)]
    for number, name in enumerate(names):
        table = image_structs(files[number * each : (number + 1) * each])
        with pa.ipc.new_stream(folder / name, table.schema) as writer:
            writer.write_table(table, max_chunksize=ROWS)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"image": {"_type": "Image"}}}))
    return folder
