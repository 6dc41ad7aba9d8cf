"""Fixtures of the store's tests: a small index, and no waiting for the disk."""

import os
from pathlib import Path

import pytest

from index_store.layout import Layout
from tests.index_store.small_index import make_index


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: no test here is about a power failure."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An index of two segments of three items, three generations."""
    return make_index(tmp_path / "x.diffsim", segments=2)
