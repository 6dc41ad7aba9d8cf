"""Commits to an object store: one writer wins, and killed or overtaken writers lose nothing."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from index_store.catalog_files.sources import Source
from index_store.commit import commit
from index_store.errors import IndexLockedError
from index_store.generation import Generation, read_current
from index_store.layout import Layout
from index_store.remote.mirror import Mirror
from index_store.remote.object_store import ObjectStore
from index_store.remote.pull import MIRRORS_VARIABLE, local_root
from retrieval.indexing.reports import BuildEvent
from retrieval.indexing.upkeep.repairing import verify
from tests.index_store.remote.remote_index import build, folder_of, names_in
from tests.support.paths import ROOT
from tests.support.sample_index import Contents, paint

pytestmark = pytest.mark.xdist_group("object_store")

KILLED = """
import os, signal, sys
from pathlib import Path
from unittest import mock
from index_store.remote.object_store import ObjectStore
from tests.index_store.remote.remote_index import build
own, commits = ObjectStore.{method}, 0
def kill(self, key, *rest):
    global commits
    commits += key.endswith({ending!r}) and "spare" not in key
    if commits == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return own(self, key, *rest)
with mock.patch.object(ObjectStore, "{method}", kill):
    build(Path(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.parametrize(
    ("method", "ending", "number", "expected"),
    [
        pytest.param("create", "CURRENT", 1, 0, id="before the first commit", marks=pytest.mark.slow),
        pytest.param("replace", "CURRENT", 2, 4, id="before a later commit"),
        pytest.param("put", "items.parquet", 2, 4, id="in mid-upload", marks=pytest.mark.slow),
    ],
)
@pytest.mark.thorough
def test_a_killed_writer_leaves_the_last_commit(
    method: str, ending: str, number: int, expected: int, url: str, tmp_path: Path, other_machine: Callable[[], None]
) -> None:
    source = tmp_path / "pictures"
    paint(source, range(10))
    script = KILLED.format(method=method, ending=ending, number=number)
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


@pytest.mark.parametrize(("method", "ending"), [("create", ".json"), ("create", "CURRENT"), ("replace", "CURRENT")])
@pytest.mark.thorough
def test_a_lost_answer_is_no_other_writer(method: str, ending: str, url: str, tmp_path: Path) -> None:
    """The store did as it was asked, the answer was lost, and the repeated request met its own work."""
    source = tmp_path / "pictures"
    paint(source, range(10))
    own, lost = getattr(ObjectStore, method), []

    def lose(self: ObjectStore, key: str, *rest: object) -> object:
        answer = own(self, key, *rest)
        if not key.endswith(ending) or len(lost) == 2:
            return answer
        lost.append(key)
        return None

    with mock.patch.object(ObjectStore, method, lose):
        build(source, url)
    assert lost
    assert Contents.of(local_root(url)).differences(folder_of(source, tmp_path / "local.diffsim")) == []
    assert verify(url) == []


def test_a_writer_that_was_overtaken_is_told(url: str, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    paint(source, range(4))
    build(source, url)
    paint(source, range(4, 8))
    passed = []

    def overtake(event: BuildEvent) -> None:
        if event.stage == "loaded" and not passed:
            passed.append(event)
            with mock.patch.dict(os.environ, {MIRRORS_VARIABLE: str(tmp_path / "faster")}):
                build(source, url)

    with pytest.raises(IndexLockedError, match="another writer has committed"):
        build(source, url, on_progress=overtake)
    expected = folder_of(source, tmp_path / "local.diffsim")
    assert Contents.of(local_root(url)).differences(expected) == []
    build(source, url)
    assert Contents.of(local_root(url)).differences(expected) == []


@pytest.mark.parametrize(
    "begun", [False, pytest.param(True, marks=pytest.mark.thorough)], ids=["first commit", "later commit"]
)
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
            threading.Thread(
                target=write, args=(layout, replace(base, sources=(Source(0, f"/{turn}-{number}"),)), barrier)
            )
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
    [(ObjectStore, "create"), (ObjectStore, "replace"), (Mirror, "upload")],
    ids=["first commit", "later commit", "upload"],
)
@pytest.mark.thorough
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
