"""An index in an object store is the same as a folder to its users."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from index_store.errors import DiffSimError, IndexNotFoundError, RemoteStoreError, UsageError
from index_store.locate import find_index
from index_store.reader import IndexReader
from index_store.remote.pull import MIRRORS_VARIABLE, existing_root, local_root
from retrieval.indexing.build import build_index
from retrieval.indexing.dry_run import plan_build
from retrieval.indexing.fill import fill_index
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.removing import remove_items
from retrieval.search.engine import Engine
from tests.index_store.remote.remote_index import build
from tests.support.commands import failed, run_here
from tests.support.sample_index import RUN, Contents, paint
from tests.support.stub_models import tiny_model

pytestmark = pytest.mark.xdist_group("object_store")


@pytest.mark.thorough
def test_the_commands_end_to_end(remote: dict[str, str], url: str, gallery: Path, tmp_path: Path) -> None:
    source, query = tmp_path / "pictures", gallery / "oil" / "cat.png"
    source.mkdir()
    paths = sorted(gallery.rglob("*.png"))[::3]
    for number, path in enumerate(paths):
        (source / f"{number:02d}.png").write_bytes(path.read_bytes())

    def results(index: str | Path) -> list[dict[str, object]]:
        found = Engine.open(index).search(query, "style", k=8).to_dict()["results"]
        return [{key: row[key] for key in ("path", "score", "coarse_score")} for row in found]

    built = run_here("diffsim-index", "build", source, "--index", url, "--model", "cells", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    assert f"{url}: {len(paths)} images".encode() in built.stdout
    build_index(source, tmp_path / "a.diffsim", model="cells")
    assert results(url) == results(tmp_path / "a.diffsim")

    (source / "03.png").write_bytes(query.read_bytes())
    (source / "05.png").unlink()
    report = build_index(source, url)
    assert (report.index, report.added, report.replaced, report.removed) == (url, 1, 1, 1)
    build_index(source, tmp_path / "b.diffsim", model="cells")
    fresh = {**remote, MIRRORS_VARIABLE: str(tmp_path / "elsewhere"), "DIFFSIM_INDEX": url}
    with mock.patch.dict(os.environ, fresh):
        searched = run_here("diffsim-search", query, "--mode", "style", "-k", "8", "--json", cwd=tmp_path)
    assert searched.returncode == 0, searched.stderr
    answer = json.loads(searched.stdout)
    assert answer["index"]["path"] == url
    found = [{key: row[key] for key in ("path", "score", "coarse_score")} for row in answer["results"]]
    assert found == results(tmp_path / "b.diffsim") == results(url)
    assert found[0]["path"] == str(source / "03.png")

    sizes = ("-k", "2", "--queries", "2", "--candidates", "5", "--json")
    with mock.patch.dict(os.environ, fresh):
        recall = json.loads(run_here("diffsim-eval", "coarse-recall", url, *sizes, cwd=tmp_path).stdout)
        checked = run_here("diffsim-index", "verify", cwd=tmp_path)
    assert (recall["index"], len(recall["recalls"])) == (url, 3)
    assert checked.stdout.decode().strip() == f"{url}: no damage"
    about, local = Engine.open(url).info(), Engine.open(tmp_path / "b.diffsim").info()
    assert about["path"] == url
    assert about["bytes"]["style"] > local["bytes"]["style"], "the replaced and removed images' tensors are there still"
    assert not list((tmp_path / "mirrors").rglob("*.zarr")), "tensors stay in the store"


def test_wrong_places_are_told_in_a_sentence(remote: dict[str, str], url: str, tmp_path: Path) -> None:
    message = failed(run_here("diffsim-index", "info", "--index", url, cwd=tmp_path), 3)
    assert f"there is no index at {url}" in message
    for place, what in (("gopher://a/b", "gopher://a/b: only folders and s3"), ("s3://bucket", "BUCKET/NAME.diffsim")):
        with pytest.raises(UsageError, match=what):
            find_index(place, {}, tmp_path)
        with pytest.raises(UsageError, match=what):
            local_root(place)
    assert find_index(None, {"DIFFSIM_INDEX": "s3://bucket//a/"}, tmp_path) == "s3://bucket/a"
    assert find_index("s3://bucket/a", {}, tmp_path) == "s3://bucket/a"
    with pytest.raises(IndexNotFoundError):
        existing_root(Path(url))  # pathlib made one slash of two
    with mock.patch.dict(sys.modules, {"obstore.store": None}), pytest.raises(RemoteStoreError, match="needs obstore"):
        local_root("s3://bucket/never-opened")


def test_a_bucket_that_is_not_there_is_told(remote: dict[str, str]) -> None:
    with pytest.raises(DiffSimError, match="missing-bucket"):
        build(paint(Path(remote[MIRRORS_VARIABLE]) / "a", range(1))[0], "s3://missing-bucket/a.diffsim")


@pytest.mark.thorough
def test_every_change_goes_through_the_store(url: str, tmp_path: Path, other_machine: Callable[[], None]) -> None:
    source = tmp_path / "pictures"
    paint(source, range(9))
    build(source, url)
    remove_items(url, ["003.png"])
    other_machine()
    with tiny_model():
        compact(url, now=True)
    kept = Contents.of(local_root(url))
    assert [Path(item.uri).name for item in kept.items] == [f"{n:03d}.png" for n in (0, 1, 2, 4, 5, 6, 7, 8)]
    with tiny_model():
        build_index(source, url, modes=["instance"], run=RUN)
        other_machine()
        assert fill_index(url, run=RUN).coverage["instance"] == 9
        local = tmp_path / "local.diffsim"
        build_index(source, local, model="cells", modes=["style", "instance"], run=RUN)
    expected, found = Contents.of(local), Contents.of(local_root(url))
    by_uri = {item.uri: row for row, item in enumerate(found.items)}
    order = [by_uri[item.uri] for item in expected.items]  # the removed image came back with a new id
    for name, rows in expected.tensors.items():
        assert [found.tensors[name][row] for row in order] == rows


def test_the_disk_need_only_hold_an_open_segment(url: str, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    paint(source, range(12))
    plans = []
    for place in (url, tmp_path / "local.diffsim"):
        with tiny_model():
            plans.append(plan_build(source, place, model="cells", modes=["style"], run=RUN).estimate)
    remote, local = plans
    assert remote is not None
    assert local is not None
    assert local.local_bytes == local.disk_bytes == remote.disk_bytes
    assert remote.local_bytes - remote.bytes_an_image * RUN.segment_rows == local.disk_bytes - 12 * local.bytes_an_image


def test_a_store_that_does_not_answer_is_told(remote: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(RemoteStoreError, match=r"s3://bucket/a\.diffsim/CURRENT can't be reached .*AWS_"):
        local_root("s3://bucket/a.diffsim")


def test_rows_of_remote_shards_are_those_of_files(url: str, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    paint(source, range(9))
    build(source, url)
    build(source, tmp_path / "local.diffsim")
    near, far = IndexReader(tmp_path / "local.diffsim"), IndexReader(local_root(url))
    rows = [8, 0, 3, 3, 5]
    for name, expected in near.attention("style", rows).items():
        np.testing.assert_array_equal(far.attention("style", rows)[name], expected)
