"""Mirrors: kept up to date, made anew, and never ahead of what they hold."""

import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from index_store.errors import IndexLockedError, IndexNotFoundError, RemoteStoreError
from index_store.layout import Layout
from index_store.lock import writer_lock
from index_store.remote.object_store import ObjectStore
from index_store.remote.pull import MIRRORS_VARIABLE, existing_root, local_root
from tests.index_store.remote.remote_index import build, names_in, store_of
from tests.support.sample_index import Contents, paint

pytestmark = pytest.mark.xdist_group("object_store")


def test_a_mirror_in_use_is_waited_for_only_where_there_is_something_to_fetch(url: str, tmp_path: Path) -> None:
    root = local_root(url)
    with writer_lock(Layout(root)):  # a first build, still loading its models
        assert local_root(url) == root
        with pytest.raises(IndexNotFoundError, match=f"no index at {url}"):
            existing_root(url)
        with pytest.raises(IndexLockedError, match="another process is writing"):
            build(paint(tmp_path / "a", range(1))[0], url)
    build(tmp_path / "a", url)
    with writer_lock(Layout(root)), mock.patch.dict(os.environ, {MIRRORS_VARIABLE: str(tmp_path / "other")}):
        build(paint(tmp_path / "a", range(2))[1].parent, url)
    with writer_lock(Layout(root)):
        assert names_in(local_root(url)) == [("a", 0)], "the writer's mirror as it is"
    assert names_in(local_root(url)) == [("a", 0), ("a", 1)]


def test_a_mirror_fetches_what_is_new_only(url: str, tmp_path: Path, other_machine: Callable[[], None]) -> None:
    source = tmp_path / "pictures"
    paint(source, range(6))
    build(source, url)
    other_machine()
    local_root(url)
    other = dict(os.environ)
    os.environ[MIRRORS_VARIABLE] = str(tmp_path / "mirrors")
    paint(source, [6, 7])
    build(source, url)
    os.environ.update(other)
    with mock.patch.object(ObjectStore, "get", autospec=True, side_effect=ObjectStore.get) as get:
        local_root(url)
        keys = [call.args[1] for call in get.call_args_list]
        segments = {key.split("/")[1] for key in keys if key.startswith("items/")}
        assert len(segments) == 1
        get.reset_mock()
        local_root(url)
        assert [call.args[1] for call in get.call_args_list] == ["CURRENT"]


def test_an_interrupted_pull_leaves_the_older_mirror(
    url: str, tmp_path: Path, other_machine: Callable[[], None]
) -> None:
    source = tmp_path / "pictures"
    paint(source, range(3))
    build(source, url)
    other_machine()
    root = local_root(url)
    before = Contents.of(root)
    os.environ[MIRRORS_VARIABLE] = str(tmp_path / "mirrors")
    paint(source, [3, 4])
    build(source, url)
    os.environ[MIRRORS_VARIABLE] = str(root.parent)
    own = ObjectStore.get

    def get(self: ObjectStore, key: str) -> object:
        if key.endswith(".npy"):
            raise RemoteStoreError("the line went dead")
        return own(self, key)

    with mock.patch.object(ObjectStore, "get", get), pytest.raises(RemoteStoreError):
        local_root(url)
    assert Contents.of(root).differences(before) == []
    assert len(Contents.of(local_root(url)).items) == 5


@pytest.mark.parametrize("seen", [False, True], ids=["unseen", "seen"])
def test_an_index_that_was_made_anew_replaces_its_mirror(seen: bool, url: str, tmp_path: Path) -> None:
    paint(tmp_path / "a", range(3))
    paint(tmp_path / "b", range(3), seed=1)
    build(tmp_path / "a", url)
    root, store = local_root(url), store_of(url)
    (root / "cache" / "style").mkdir(parents=True)  # tensors by id, and ids mean other images from now on
    store.delete([entry.key for entry in store.list("")])
    if seen:
        assert local_root(url) == root
        assert not Layout(root).current.exists()
    with mock.patch.dict(os.environ, {MIRRORS_VARIABLE: str(tmp_path / "other")}):
        build(tmp_path / "b", url)
    assert names_in(local_root(url)) == [("b", 0), ("b", 1), ("b", 2)]
    assert not (root / "cache").exists()
