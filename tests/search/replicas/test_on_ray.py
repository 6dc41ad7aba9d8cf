"""Replicas as actors on a Ray cluster of three nodes on this machine. Run with -m ray."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from retrieval import Box, Engine, EngineSettings, Filter, Query
from retrieval.encoding.loaded_models import load_models
from retrieval.errors import ReplicaLostError
from retrieval.indexing.build import build_index
from retrieval.search.queries.query import QueryInput
from retrieval.search.replicas.ray_replicas import RayReplica
from retrieval.search.replicas.replicated_index import ReplicatedIndex, on_ray
from retrieval.settings import BuildSettings, ReplicaSettings
from tests.search.replicas.questions import KINDS, assert_same_answer
from tests.support.object_server import BUCKET, ENVIRONMENT, object_server
from tests.support.ranking import assert_same_ranking

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray"), pytest.mark.filterwarnings("ignore")]

ON_CPU = EngineSettings(device="cpu", memory=1 << 24)
RUN = BuildSettings(device="cpu", batch_size=4, workers=1, segment_rows=4)
THREE = ReplicaSettings(3, 1, "auto", cpus=0.1, patience_seconds=60)

Open = Callable[..., tuple[ReplicatedIndex, Engine]]


@pytest.fixture(scope="module")
def files(gallery: Path) -> list[Path]:
    return sorted(gallery.rglob("*.png"))


@pytest.fixture(scope="module")
def three(cluster: Any, segments: Path) -> Iterator[tuple[ReplicatedIndex, Engine]]:
    """Three replicas that several tests ask; starting one takes seconds."""
    index = on_ray(segments, ON_CPU, THREE, load_models)
    yield index, index.open(segments, ON_CPU)
    index.close()


@pytest.fixture
def opened(cluster: Any) -> Iterator[Open]:
    """Opens an index on replicas; these end with the test."""
    made: list[ReplicatedIndex] = []

    def make(index: Path | str, settings: ReplicaSettings) -> tuple[ReplicatedIndex, Engine]:
        made.append(on_ray(index, ON_CPU, settings, load_models))
        return made[-1], made[-1].open(index, ON_CPU)

    yield make
    for each in made:
        each.close()


def pid_of(index: ReplicatedIndex, number: int) -> int:
    handle = index.fleet.replica(number)
    assert isinstance(handle, RayReplica)
    return handle.pid


def questions(files: list[Path]) -> list[QueryInput]:
    """As many of each kind: pictures, regions, boards, closest of two, and pictures to move away from."""
    return [
        *files,
        *(Query([file], regions=[Box(0.1, 0.2, 0.5, 0.6)]) for file in files),
        *(Query([file, other]) for file, other in zip(files, files[7:] + files[:7], strict=True)),
        *(Query([file, other], combine="max") for file, other in zip(files, files[3:] + files[:3], strict=True)),
        *(Query([file], minus=[other]) for file, other in zip(files, files[11:] + files[:11], strict=True)),
    ]


def test_three_replicas_answer_as_one_process(
    three: tuple[ReplicatedIndex, Engine], files: list[Path], alone: Engine
) -> None:
    """200 questions in each mode, half of them with a filter, and every kind of choice once."""
    _, engine = three
    asked = questions(files)
    somewhere = Filter(under=tuple(str(folder) for folder in sorted(files[0].parent.parent.iterdir())[1:4]))
    assert len(asked) == 200
    for mode in engine.modes:
        for where, some in ((None, asked[::2]), (somewhere, asked[1::2])):
            both = [each.search_many(some, mode, candidates=15, where=where) for each in (engine, alone)]
            for (_, found), (_, expected) in zip(*both, strict=True):
                assert_same_answer(found, expected)
    for kind in KINDS.values():
        assert_same_answer(kind(files, 12).of(engine), kind(files, 12).of(alone))


def test_a_replica_killed_under_load(
    three: tuple[ReplicatedIndex, Engine], files: list[Path], alone: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers stay right while others take over. Without patience the first one is an error instead."""
    index, engine = three
    asked = KINDS["box"](files, 8)
    expected, killed = asked.of(alone), pid_of(index, 1)
    threading.Timer(0.3, os.kill, (killed, signal.SIGKILL)).start()
    until = time.monotonic() + 60
    while (index.fleet.replica(1) is None or pid_of(index, 1) == killed) and time.monotonic() < until:
        assert_same_answer(asked.of(engine), expected)
    assert pid_of(index, 1) != killed
    assert index.fleet.alive == 3
    assert_same_answer(asked.of(engine), expected)
    monkeypatch.setattr(index.fleet, "_patience", 0.0)
    os.kill(pid_of(index, 0), signal.SIGKILL)  # of 1 others hold the partition by now
    with pytest.raises(ReplicaLostError, match="2 of 3 replicas answer"):
        KINDS["exhaustive"](files, 8).of(engine)


def test_of_two_holders_a_whole_node_may_go_away(
    segments: Path, files: list[Path], opened: Open, alone: Engine, cluster: Any
) -> None:
    """Each of four nodes has room for one replica, so the lost one has nowhere to go."""
    doomed = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.5")
    index, engine = opened(segments, ReplicaSettings(4, 2, "auto", cpus=0.6, patience_seconds=0))
    asked = KINDS["board"](files, 8)
    expected = asked.of(alone)
    threading.Timer(0.3, lambda: cluster.remove_node(doomed, allow_graceful=False)).start()
    until = time.monotonic() + 60
    while index.fleet.alive == 4 and time.monotonic() < until:
        assert_same_answer(asked.of(engine), expected)
    assert index.fleet.alive == 3
    assert_same_answer(asked.of(engine), expected)


def test_a_server_searches_by_replicas(cluster: Any, segments: Path, alone: Engine, files: list[Path]) -> None:
    command = [sys.executable, "-c", "from cli.serve_command import main; main()", f"photos={segments}"]
    options = ["--port", "0", "--device", "cpu", "--ray", cluster.address, "--replicas", "2", "--replica-cpus", "0.2"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = (line.strip() for line in process.stdout)  # Ray itself may first tell of machines that have gone
        url = next(line for line in lines if line.startswith("http"))
        body = json.dumps({"images": [{"id": 3}], "k": 6, "candidates": 12}).encode()
        with urlopen(Request(f"{url}v1/search", body, {"content-type": "application/json"})) as answer:
            found = [(each["id"], each["score"]) for each in json.load(answer)["results"]]
        with urlopen(f"{url}metrics") as answer:
            assert b'diffsim_replicas{index="photos"} 2.0' in answer.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert_same_ranking(found, alone.search(alone.paths()[3], k=6, candidates=12))


def test_an_index_in_an_object_store(
    gallery: Path, files: list[Path], opened: Open, alone: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replicas share no folder with the router; the tensors that they hold come to their own disks."""
    url = f"s3://{BUCKET}/gallery.diffsim"
    with object_server() as endpoint:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("DIFFSIM_MIRRORS", str(tmp_path / "mirrors"))
        build_index(gallery, url, model="cells", run=RUN)
        index, engine = opened(url, ReplicaSettings(2, 1, "auto", cpus=0.2, patience_seconds=60))
        one_process = Engine.open(url, ON_CPU)
        for kind in ("plain", "box", "board", "filter", "coarse"):  # there are no percentiles in an object store
            asked = KINDS[kind](files, 12)
            assert_same_answer(asked.of(engine), asked.of(one_process))
        until = time.monotonic() + 30
        while not _near(tmp_path, 1) and time.monotonic() < until:
            time.sleep(0.1)
        held = [{path.parent.parent.name for path in _near(tmp_path, number)} for number in range(2)]
        assert all(held)
        assert index.fleet.alive == 2


def _near(folder: Path, replica: int) -> list[Path]:
    return [path for path in folder.glob(f"mirrors/replica-{replica}/*/attention/**/*") if path.is_file()]
