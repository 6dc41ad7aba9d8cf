"""Compare an index whose writer was killed with one that was never disturbed."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.indexing.upkeep.repairing import verify
from retrieval.settings import BuildSettings
from tests.support.kill.child import Say
from tests.support.sample_index import Contents

SEGMENT = 8
BATCH = 4
SEED = 5
REAL = BuildSettings(device="cpu", batch_size=BATCH, segment_rows=SEGMENT, workers=1)


def keep_contents(index: Path) -> None:
    """Read an index once, for :func:`look` to compare others with."""
    index.with_suffix(".pickle").write_bytes(pickle.dumps(Contents.of(index)))


def look(index: Path, whole: Path) -> dict[str, Any]:
    """Read an index with all checksums, and compare it with the same number of images of the undisturbed one."""
    if not Layout(index).current.exists():
        return {"segments": 0, "items": 0, "differences": []}
    found: Contents = Contents.of(index)
    expected: Contents = pickle.loads(whole.with_suffix(".pickle").read_bytes())
    first = replace(expected.first(len(found.items)), rejects=expected.rejects[: len(found.rejects)])
    segments = len(IndexReader(index).generation.segments)
    return {"segments": segments, "items": len(found.items), "differences": found.differences(first)}


def look_partial(index: Path, whole: Path) -> dict[str, Any]:
    """Count the tensors of each mode and those that differ from the undisturbed index; verify every checksum."""
    reader = IndexReader(index)
    expected: Contents = pickle.loads(whole.with_suffix(".pickle").read_bytes())
    wrong = int(reader.items() != expected.items) + len(verify(index))
    held: dict[str, int] = {}
    for mode in reader.generation.modes:
        rows = np.flatnonzero(reader.has_tensors(mode)).tolist()
        held[mode] = len(rows)
        for name, array in (reader.attention(mode, rows) if rows else {}).items():
            wrong += sum(
                a.tobytes() != expected.tensors[f"{mode}/{name}"][row] for a, row in zip(array, rows, strict=True)
            )
    for encoder in reader.generation.encoders:
        vectors, rows = reader.vectors(encoder), np.flatnonzero(reader.has_vector(encoder)).tolist()
        held[encoder] = len(rows)
        wrong += sum(vectors[row].tobytes() != expected.vectors[encoder][row] for row in rows)
    return {"held": held, "wrong": wrong}


@contextmanager
def reporting_batches(say: Say) -> Iterator[None]:
    """Say of every batch that it is about to be computed."""
    begin = LoadedModels.begin

    def reporting(self: LoadedModels, batch: Any, *rest: Any) -> Any:
        say(computing=len(batch))
        return begin(self, batch, *rest)

    with mock.patch.object(LoadedModels, "begin", reporting):
        yield
