"""An index in an object store: the same as a folder to its users, and safe among writers that know nothing of each
other."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from index_store.commit import commit
from index_store.errors import (
    DiffSimError,
    IndexCorruptError,
    IndexLockedError,
    IndexNotFoundError,
    RemoteStoreError,
    UsageError,
)
from index_store.generation import Generation, read_current
from index_store.layout import Layout
from index_store.locate import find_index
from index_store.lock import writer_lock
from index_store.reader import IndexReader
from index_store.remote.mirror import Mirror, find_mirror
from index_store.remote.object_store import ObjectStore, open_store
from index_store.remote.pull import MIRRORS_VARIABLE, existing_root, local_root
from retrieval.indexing.build import build_index
from retrieval.indexing.dry_run import plan_build
from retrieval.indexing.fill import fill_index
from retrieval.indexing.maintenance import compact, remove_items, repair, verify
from retrieval.indexing.reports import BuildEvent
from retrieval.search.engine import Engine
from tests.cli.test_cli import failed, run
from tests.support.object_server import BUCKET, ENVIRONMENT, object_server
from tests.support.paths import ROOT
from tests.support.sample_index import RUN, Contents, paint
from tests.support.stub_models import tiny_model

pytestmark = pytest.mark.xdist_group("object_store")
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A running object server."""
    with object_server() as place:
        yield place


@pytest.fixture
def remote(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a machine that uses the server; also this process's."""
    environment = {**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint, MIRRORS_VARIABLE: str(tmp_path / "mirrors")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.fixture
def url(remote: dict[str, str]) -> str:
    """Where no index is yet."""
    return f"s3://{BUCKET}/tests/{next(NUMBERS)}.diffsim"


@pytest.fixture
def other_machine(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Go on as another machine, whose mirrors are empty."""
    numbers = itertools.count()
    with mock.patch.dict(os.environ):
        yield lambda: os.environ.update({MIRRORS_VARIABLE: str(tmp_path / f"other{next(numbers)}")})


def store_of(url: str) -> ObjectStore:
    return open_store(url, os.environ["AWS_ENDPOINT_URL"])


def build(source: Path, index: str | Path, **options: object) -> None:
    with tiny_model():
        build_index(source, index, model="mini", modes=["style"], run=RUN, **options)  # type: ignore[arg-type]


def folder_of(source: Path, place: Path) -> Contents:
    """What an index of the same images in a folder says."""
    build(source, place)
    return Contents.of(place)


def test_the_commands_end_to_end(remote: dict[str, str], url: str, gallery: Path, tmp_path: Path) -> None:
    source, query = tmp_path / "pictures", gallery / "oil" / "cat.png"
    source.mkdir()
    paths = sorted(gallery.rglob("*.png"))[::3]
    for number, path in enumerate(paths):
        (source / f"{number:02d}.png").write_bytes(path.read_bytes())

    def results(index: str | Path) -> list[dict[str, object]]:
        found = Engine.open(index).search(query, "style", k=8).to_dict()["results"]
        return [{key: row[key] for key in ("path", "score", "coarse_score")} for row in found]

    built = run("diffsim-index", "build", source, "--index", url, "--model", "mini", cwd=tmp_path, environment=remote)
    assert built.returncode == 0, built.stderr
    assert f"{url}: {len(paths)} images".encode() in built.stdout
    build_index(source, tmp_path / "a.diffsim", model="mini")
    assert results(url) == results(tmp_path / "a.diffsim")

    (source / "03.png").write_bytes(query.read_bytes())
    (source / "05.png").unlink()
    report = build_index(source, url)
    assert (report.index, report.added, report.replaced, report.removed) == (url, 1, 1, 1)
    build_index(source, tmp_path / "b.diffsim", model="mini")
    fresh = {**remote, MIRRORS_VARIABLE: str(tmp_path / "elsewhere"), "DIFFSIM_INDEX": url}
    searched = run("diffsim-search", query, "--mode", "style", "-k", "8", "--json", cwd=tmp_path, environment=fresh)
    assert searched.returncode == 0, searched.stderr
    answer = json.loads(searched.stdout)
    assert answer["index"]["path"] == url
    found = [{key: row[key] for key in ("path", "score", "coarse_score")} for row in answer["results"]]
    assert found == results(tmp_path / "b.diffsim") == results(url)
    assert found[0]["path"] == str(source / "03.png")

    sizes = ("-k", "2", "--queries", "2", "--candidates", "5", "--json")
    recall = json.loads(run("diffsim-eval", "coarse-recall", url, *sizes, cwd=tmp_path, environment=fresh).stdout)
    assert (recall["index"], len(recall["recalls"])) == (url, 3)
    checked = run("diffsim-index", "verify", cwd=tmp_path, environment=fresh)
    assert checked.stdout.decode().strip() == f"{url}: whole"
    about, local = Engine.open(url).info(), Engine.open(tmp_path / "b.diffsim").info()
    assert about["path"] == url
    assert about["bytes"]["style"] > local["bytes"]["style"], "the replaced and removed images' tensors are there still"
    assert not list((tmp_path / "mirrors").rglob("*.zarr")), "tensors stay in the store"


def test_wrong_places_are_told_in_a_sentence(remote: dict[str, str], url: str, tmp_path: Path) -> None:
    message = failed(run("diffsim-index", "info", "--index", url, cwd=tmp_path, environment=remote), 3)
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


def test_a_bucket_that_is_not_there_is_told(remote: dict[str, str]) -> None:
    with pytest.raises(DiffSimError, match="missing-bucket"):
        build(paint(Path(remote[MIRRORS_VARIABLE]) / "a", range(1))[0], "s3://missing-bucket/a.diffsim")


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
        build_index(source, local, model="mini", modes=["style", "instance"], run=RUN)
    expected, found = Contents.of(local), Contents.of(local_root(url))
    by_uri = {item.uri: row for row, item in enumerate(found.items)}
    order = [by_uri[item.uri] for item in expected.items]  # the removed image came back with a new id
    for name, rows in expected.tensors.items():
        assert [found.tensors[name][row] for row in order] == rows


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


KILLED = """
import os, signal, sys
from pathlib import Path
from unittest import mock
from index_store.objects import ObjectStore
from tests.test_object_store import build
own, commits = ObjectStore.{method}, 0
def kill(self, key, *rest):
    global commits
    commits += key == "CURRENT" or {every}
    if commits == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return own(self, key, *rest)
with mock.patch.object(ObjectStore, "{method}", kill):
    build(Path(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.parametrize(
    ("method", "every", "number", "expected"),
    [("create", False, 1, 0), ("replace", False, 2, 4), ("put", True, 12, 4)],
    ids=["before the first commit", "before a later commit", "in mid-upload"],
)
def test_a_killed_writer_leaves_the_last_commit(
    method: str, every: bool, number: int, expected: int, url: str, tmp_path: Path, other_machine: Callable[[], None]
) -> None:
    source = tmp_path / "pictures"
    paint(source, range(10))
    script = KILLED.format(method=method, every=every, number=number)
    killed = subprocess.run([sys.executable, "-c", script, str(source), url], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    undisturbed = folder_of(source, tmp_path / "local.diffsim")
    own = os.environ[MIRRORS_VARIABLE]
    other_machine()  # which sees only what was committed
    root = local_root(url)
    if expected:
        assert Contents.of(root).differences(undisturbed.first(expected)) == []
    else:
        assert not Layout(root).current.exists()
    os.environ[MIRRORS_VARIABLE] = own
    build(source, url)
    assert Contents.of(local_root(url)).differences(undisturbed) == []
    other_machine()
    assert Contents.of(local_root(url)).differences(undisturbed) == []
    assert verify(url) == []


def test_a_writer_that_was_overtaken_is_told(url: str, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    paint(source, range(4))
    build(source, url)
    paint(source, range(4, 8))
    passed = []

    def overtake(event: BuildEvent) -> None:
        if event.kind == "loaded" and not passed:
            passed.append(event)
            with mock.patch.dict(os.environ, {MIRRORS_VARIABLE: str(tmp_path / "faster")}):
                build(source, url)

    with pytest.raises(IndexLockedError, match="another writer has committed"):
        build(source, url, on_event=overtake)
    expected = folder_of(source, tmp_path / "local.diffsim")
    assert Contents.of(local_root(url)).differences(expected) == []
    build(source, url)
    assert Contents.of(local_root(url)).differences(expected) == []


@pytest.mark.parametrize("begun", [False, True], ids=["first commit", "later commit"])
def test_of_two_writers_exactly_one_wins(begun: bool, url: str, tmp_path: Path) -> None:
    outcomes: list[object] = []

    def opened(place: str, machine: str) -> Layout:
        with mock.patch.dict(os.environ, {MIRRORS_VARIABLE: str(tmp_path / machine)}):
            return Layout(local_root(place))

    def write(layout: Layout, generation: Generation, barrier: threading.Barrier) -> None:
        barrier.wait()
        try:
            outcomes.append(commit(layout, generation, "a test").sources)
        except IndexLockedError as error:
            outcomes.append(error)

    nothing = Generation(0, {}, {}, (), (), ())
    if begun:
        commit(opened(url, "first"), nothing, "a test")
    for turn in range(8):
        place = url if begun else f"{url}-{turn}"
        layouts = [opened(place, machine) for machine in ("one", "two")]
        base = read_current(layouts[0]) if begun else nothing
        barrier, outcomes[:] = threading.Barrier(2), []
        threads = [
            threading.Thread(target=write, args=(layout, replace(base, sources=(f"{turn}-{number}",)), barrier))
            for number, layout in enumerate(layouts)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        won = [outcome for outcome in outcomes if isinstance(outcome, tuple)]
        assert len(outcomes) == 2
        assert len(won) == 1
        assert read_current(opened(place, "three")).sources == won[0]


@pytest.mark.parametrize(
    ("kind", "method"),
    [(ObjectStore, "create"), (ObjectStore, "replace"), (Mirror, "_upload")],
    ids=["first commit", "later commit", "upload"],
)
def test_a_writer_that_is_overtaken_at_the_last_moment_changes_nothing(
    kind: type, method: str, url: str, tmp_path: Path
) -> None:
    """The faster one commits while the slower one is about to upload, or has uploaded all and is about to commit."""
    sources = {name: tmp_path / name for name in ("both", "slower", "faster")}
    for seed, folder in enumerate(sources.values()):
        paint(folder, range(3), seed)
    if method != "create":
        build(sources["both"], url)
    own, passed = getattr(kind, method), []

    def overtake(self: object, what: object, *rest: object) -> object:
        if not passed and (what == "CURRENT" or kind is Mirror):
            passed.append(what)
            with mock.patch.dict(os.environ, {MIRRORS_VARIABLE: str(tmp_path / "faster machine")}):
                build(sources["faster"], url)
        return own(self, what, *rest)

    with mock.patch.object(kind, method, overtake), pytest.raises(IndexLockedError, match="another writer"):
        build(sources["slower"], url)
    expected = [("both", n) for n in range(3)] * (method != "create") + [("faster", n) for n in range(3)]
    assert names_in(local_root(url)) == expected
    local = tmp_path / "local.diffsim"
    for name in ("both", "faster")[method == "create" :]:
        build(sources[name], local)
    assert Contents.of(local_root(url)).differences(Contents.of(local)) == []
    build(sources["slower"], url)
    assert names_in(local_root(url)) == [*expected, *(("slower", n) for n in range(3))]
    assert verify(url) == []


def names_in(root: Path) -> list[tuple[str, int]]:
    """The items as (folder, number); all their bytes are read on the way."""
    paths = [Path(item.uri) for item in Contents.of(root).items]
    return [(path.parent.name, int(path.stem)) for path in paths]


def test_damage_in_the_store_is_found_named_and_taken_out(url: str, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    paint(source, range(6))
    build(source, url)
    undisturbed, store = Contents.of(local_root(url)), store_of(url)
    shard = next(entry.key for entry in store.list("attention") if "/q/c/" in entry.key)
    found = store.get(shard)
    assert found is not None
    store.put(shard, bytes([found.data[0] ^ 1]) + found.data[1:])
    catalog = next(entry.key for entry in reversed(list(store.list("items"))) if entry.key.endswith("items.parquet"))
    store.delete([catalog])
    with pytest.raises(IndexCorruptError, match=f"{url}/{shard} holds a row whose checksum"):
        Contents.of(local_root(url))
    assert len(verify(url)) == 2
    with pytest.raises(IndexCorruptError, match=r"items\.parquet is missing"):
        Contents.of(local_root(url))
    assert len(repair(url).damages) == 2
    build(source, url)
    assert verify(url) == []
    mended = Contents.of(local_root(url))
    order = [[item.uri for item in mended.items].index(item.uri) for item in undisturbed.items]
    for name, rows in undisturbed.tensors.items():
        assert [mended.tensors[name][row] for row in order] == rows


def test_a_lost_head_is_no_new_index(url: str, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    paint(source, range(2))
    build(source, url)
    store_of(url).delete(["CURRENT"])
    with pytest.raises(IndexCorruptError, match=f"{url}/CURRENT is missing"):
        build(source, url)


def test_garbage_goes_when_it_is_old_and_nothing_else(url: str, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    paint(source, range(5))
    build(source, url)
    store, root = store_of(url), local_root(url)
    before = {entry.key for entry in store.list("")}
    left = ["items/000009-ab/items.parquet", "attention/style/000009-ab.zarr/zarr.json", "generations/000099.json"]
    for key in (*left, "projections/0123.npz", "notes.txt"):
        store.put(key, b"left by a killed writer, or just under way")
    mirror = find_mirror(Layout(root))
    assert isinstance(mirror, Mirror)
    assert mirror.sweep(read_current(Layout(root))) == []
    assert sorted(mirror.sweep(read_current(Layout(root)), timedelta(seconds=-60))) == sorted(
        [*left, "projections/0123.npz"]
    )
    assert {entry.key for entry in store.list("")} == before | {"notes.txt"}
    assert verify(url) == []


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


def test_the_disk_need_only_hold_an_open_segment(url: str, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    paint(source, range(12))
    plans = []
    for place in (url, tmp_path / "local.diffsim"):
        with tiny_model():
            plans.append(plan_build(source, place, model="mini", modes=["style"], run=RUN).estimate)
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
