"""The 8-bit lists of an IVF index choose rows; the stored vectors give their cosines."""

import json
from pathlib import Path

import numpy as np
import pytest

from index_store.errors import IndexCorruptError
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.vectors import ivf, training
from index_store.vectors.flat import import_faiss
from index_store.vectors.ivf_and_rest import IVFAndRestIndex
from index_store.vectors.training import train_where_due
from tests.support.synthetic_index import ENCODER, add_segments


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index that is trained."""
    monkeypatch.setattr(training, "IVF_FROM_ROWS", 200)
    add_segments(tmp_path / "e.diffsim", [150, 250, 200], 12)
    train_where_due(IndexReader(tmp_path / "e.diffsim").vector_reader)
    return tmp_path / "e.diffsim"


def test_many_queries_at_once_find_what_each_finds(root: Path) -> None:
    add_segments(root, [90], 12, seed=1, generation=IndexReader(root).generation)
    reader = IndexReader(root)
    index, queries = reader.coarse_index(ENCODER), reader.vectors(ENCODER)[::41]
    rows, cosines = index.search_many(queries, 30)
    for number, query in enumerate(queries):
        found = index.search(query, 30)
        np.testing.assert_array_equal(rows[number], found[0])
        np.testing.assert_array_equal(cosines[number], found[1])
    rows, cosines = index.search_many(queries, 700)
    assert ((rows < 0) == np.isneginf(cosines)).all()
    assert ((rows < 0).sum(axis=1) >= 10).all()


def test_a_vector_is_no_further_from_its_8_bits_than_the_record_says(root: Path) -> None:
    record = ivf.read_record(Layout(root), ENCODER)
    assert record is not None
    trained = import_faiss().read_index(str(Layout(root).derived / record.file))
    trained.set_direct_map_type(import_faiss().DirectMap.Hashtable)
    stored = IndexReader(root).stored_vectors(ENCODER).astype(np.float32)
    distances = np.linalg.norm(trained.reconstruct_batch(np.arange(600)) - stored, axis=1)
    assert 0.5 * record.error < distances.max() <= record.error < 0.1


def test_a_stored_vector_that_is_damaged_after_the_training_is_an_error(root: Path) -> None:
    query = IndexReader(root).vectors(ENCODER)[7]
    path = Layout(root).vectors(IndexReader(root).generation.segments[0].name, ENCODER)
    vectors = np.load(path)
    vectors[7, 3] = -vectors[7, 3]
    np.save(path, vectors)
    index = IndexReader(root).coarse_index(ENCODER)
    assert isinstance(index, IVFAndRestIndex)
    for allowed in (None, np.arange(600), np.arange(20)):
        with pytest.raises(IndexCorruptError, match=f"{path.name} has changed since it was written"):
            index.search(query, 15, allowed)
    assert len(index.search(query, 15, np.arange(150, 300))[0]) == 15  # the other segments are whole


def test_an_index_of_an_earlier_version_is_scanned_and_trained_anew(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Layout(root).ivf_record(ENCODER)
    record = json.loads(path.read_text())
    del record["error"]
    path.write_text(json.dumps(record))
    assert not isinstance(IndexReader(root).coarse_index(ENCODER), IVFAndRestIndex)
    assert "scan all vectors until the next build: an earlier version made it" in caplog.text
    train_where_due(IndexReader(root).vector_reader)
    assert isinstance(IndexReader(root).coarse_index(ENCODER), IVFAndRestIndex)
