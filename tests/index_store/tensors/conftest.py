"""Fixtures of the tensors' tests."""

import pytest

from index_store.tensors import attention
from tests.index_store.tensors.small_group import SHARD_ROWS


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "SHARD_ROWS", SHARD_ROWS)
