"""Atomic writes, and errors of a disk that is full."""

import errno
import resource
from pathlib import Path

import numpy as np
import pytest

from index_store.catalog import ITEM_SCHEMA, write_rows
from index_store.errors import NoSpaceError
from index_store.vectors.storage import write_vectors
from tests.index_store.small_index import item

FULL_DEVICE = Path("/dev/full")


@pytest.mark.skipif(not FULL_DEVICE.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("kind", ["parquet", "npy"])
def test_every_writer_says_that_the_disk_is_full(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"file.{kind}"
    path.symlink_to(FULL_DEVICE)
    with pytest.raises(NoSpaceError, match="disk is full") as caught:  # noqa: PT012  (one of two)
        if kind == "parquet":
            write_rows(path, [item(number) for number in range(1000)], ITEM_SCHEMA)
        else:
            write_vectors(path, [np.zeros((1000, 100), np.float32)])
    assert str(path) in str(caught.value)


def test_a_write_that_stops_halfway_says_why(tmp_path: Path) -> None:
    """A limit on file sizes stands in for a disk that fills up: the first bytes fit, the rest does not."""
    own = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, own[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_vectors(tmp_path / "e.npy", [np.zeros((1000, 100), np.float32)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, own)
    assert caught.value.errno == errno.EFBIG
