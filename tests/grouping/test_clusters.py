"""Clusters are those of the drawn styles, and are written as tables and sheets."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from index_store.reader import IndexReader
from retrieval import Cancellation, Clusters, ClusterSettings, draw_clusters, find_clusters, write_assignments
from retrieval.errors import CancelledError, DependencyError, UsageError
from retrieval.grouping.clusters import _divided, _import_hdbscan
from retrieval.grouping.graph import Graph


@pytest.fixture(scope="module")
def found(index: Path) -> Clusters:
    return find_clusters(index, ClusterSettings(mode="style", neighbours=7))


def test_drawn_styles_are_clusters(found: Clusters) -> None:
    assert (found.images, found.mode, found.is_exact) == (40, "style", True)
    assert 3 <= len(found.clusters) <= 8
    for cluster in found.clusters:
        styles = [Path(member.path).parent.name for member in cluster.members]
        assert styles.count(styles[0]) >= 0.75 * len(styles)
        assert 0 < cluster.cohesion <= 1
        assert cluster.medoid.score is None
        assert all(0 < (member.score or 0) <= 1 for member in cluster.members[1:])
    sizes = [len(cluster.members) for cluster in found.clusters]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) + len(found.noise) == 40
    assert [cluster.number for cluster in found.clusters] == list(range(len(sizes)))


def test_the_same_index_gives_the_same_clusters(index: Path, found: Clusters) -> None:
    again = find_clusters(IndexReader(index), ClusterSettings(mode="style", neighbours=7))
    assert (again.clusters, again.noise) == (found.clusters, found.noise)


def test_vectors_alone_divide_where_scores_are_not_wanted(index: Path) -> None:
    found = find_clusters(index, ClusterSettings(mode="style", neighbours=7, rerank=False))
    assert (found.is_exact, found.notes) == (False, ())
    assert found.clusters
    assert all(member.score is None for cluster in found.clusters for member in cluster.members)


def test_every_image_has_one_row_in_the_table(found: Clusters, tmp_path: Path) -> None:
    for name in ("a.csv", "a.parquet"):
        write_assignments(tmp_path / name, found)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [(int(row["id"]), row["path"], int(row["cluster"])) for row in rows] == [
        (row["id"], row["path"], row["cluster"]) for row in table
    ]
    assert [row["id"] for row in table] == sorted({row["id"] for row in table})
    assert len(table) == 40
    assert sum(row["cluster"] == -1 for row in table) == len(found.noise)
    assert sum(row["is_medoid"] for row in table) == len(found.clusters)
    with pytest.raises(UsageError, match=r"must end in one of .csv, .parquet"):
        write_assignments(tmp_path / "a.txt", found)


def test_json_and_the_sheet_hold_every_cluster(found: Clusters, tmp_path: Path) -> None:
    values = json.loads(json.dumps(found.to_dict()))
    assert (values["schema"], values["images"], values["exact"]) == (1, 40, True)
    assert [cluster["size"] for cluster in values["clusters"]] == [len(c.members) for c in found.clusters]
    assert draw_clusters(tmp_path / "clusters.html", found) == 0
    page = (tmp_path / "clusters.html").read_text("utf-8")
    assert page.count("<b>medoid</b>") == len(found.clusters)
    assert f"cluster 0, {len(found.clusters[0].members)} images" in page


def test_apart_and_single_rows_are_noise() -> None:
    """Two cliques of four that nothing joins, a pair, and a row without an edge."""
    cliques = [(a, b) for start in (0, 4) for a in range(start, start + 4) for b in range(a + 1, start + 4)]
    edges = np.array([*cliques, (8, 9)])
    scores = np.array([0.9] * len(cliques) + [0.9], np.float32)
    labels, firmness = _divided(_import_hdbscan(), Graph(edges[:, 0], edges[:, 1], scores, True), 11, 4)
    assert len({int(label) for label in labels[:4]}) == len({int(label) for label in labels[4:8]}) == 1
    assert labels[0] != labels[4]
    assert labels[8:].tolist() == [-1, -1, -1]
    assert firmness[10] == 0
    nothing = np.empty(0, np.int64)
    assert _divided(None, Graph(nothing, nothing, scores[:0], True), 3, 4)[0].tolist() == [-1, -1, -1]


def test_errors(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown mode 'lowlevel'; modes of this index: style, instance, semantic"):
        find_clusters(index, ClusterSettings(mode="lowlevel"))
    with pytest.raises(UsageError, match="min size must be at least 2"):
        ClusterSettings(min_size=1)
    cancel = Cancellation()
    cancel.request()
    with pytest.raises(CancelledError):
        find_clusters(index, cancel=cancel)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(DependencyError, match="clusters need the package scikit-learn"):
        find_clusters(index)
