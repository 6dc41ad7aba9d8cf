"""Builds on a Ray cluster of three nodes on this machine. Run with -m ray; the default run never imports Ray."""

import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index_store.reader import IndexReader
from index_store.remote.pull import existing_root
from retrieval.errors import IndexLockedError
from retrieval.indexing.build import build_index
from retrieval.indexing.fill import fill_index
from retrieval.indexing.reports import BuildEvent
from retrieval.indexing.upkeep.repairing import verify
from retrieval.settings import BuildSettings, WorkerSettings
from tests.support.faults import flip_bit
from tests.support.object_server import BUCKET, ENVIRONMENT, object_server
from tests.support.sample_index import Contents, paint

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray"), pytest.mark.filterwarnings("ignore")]

IMAGES = 60
LOCAL = BuildSettings(device="cpu", batch_size=2, workers=1, segment_rows=4)
ON_RAY = replace(LOCAL, pool=WorkerSettings("ray", 3, "auto"))
CELLS: dict[str, Any] = {"model": "cells", "modes": ["style"]}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    paint(tmp_path / "photos", range(IMAGES))
    return tmp_path / "photos"


@pytest.fixture
def local(photos: Path, tmp_path: Path) -> Contents:
    build_index(photos, tmp_path / "local.diffsim", run=LOCAL, **CELLS)
    return Contents.of(tmp_path / "local.diffsim")


def test_the_index_is_the_local_one(cluster: Any, photos: Path, tmp_path: Path, local: Contents) -> None:
    build_index(photos, tmp_path / "ray.diffsim", run=ON_RAY, **CELLS)
    assert Contents.of(tmp_path / "ray.diffsim").differences(local) == []
    assert verify(tmp_path / "ray.diffsim") == []


def test_a_node_killed_in_mid_build_costs_its_unfinished_segments(
    cluster: Any, photos: Path, tmp_path: Path, local: Contents
) -> None:
    """The spare node joins late, so that the workers of the killed one have a place to go."""
    index, doomed = tmp_path / "ray.diffsim", cluster.add_node(num_cpus=1, node_ip_address="127.0.0.5")
    killed = threading.Event()

    def kill(event: BuildEvent) -> None:
        if event.stage == "commit" and not killed.is_set():
            cluster.remove_node(doomed, allow_graceful=False)
            killed.set()

    run = replace(ON_RAY, pool=WorkerSettings("ray", 4, "auto"))
    build_index(photos, index, run=run, on_progress=kill, **CELLS)
    assert killed.is_set()
    assert Contents.of(index).differences(local) == []


def test_fills_and_checks_are_divided_among_workers(
    cluster: Any, photos: Path, tmp_path: Path, local: Contents
) -> None:
    index = tmp_path / "lazy.diffsim"
    build_index(photos, index, run=replace(LOCAL, attention="lazy"), **CELLS)
    report = fill_index(index, order=["path"], run=ON_RAY)
    assert (report.completed, report.incomplete) == (IMAGES, 0)
    assert Contents.of(index).differences(local) == []
    assert verify(index, pool=ON_RAY.pool) == []
    flip_bit(next(index.glob("items/*/vectors/*.npy")), 200)
    assert verify(index, pool=ON_RAY.pool) == verify(index) != []


def test_a_driver_killed_and_started_again_resumes(cluster: Any, photos: Path, tmp_path: Path, local: Contents) -> None:
    index = tmp_path / "ray.diffsim"
    command = [sys.executable, "-c", "from cli.index_command import main; main()", "build", str(photos)]
    options = ["--index", str(index), "--model", "cells", "--modes", "style", "--device", "cpu", "--workers", "1"]
    options += ["--batch-size", "2", "--segment-rows", "4", "--ray", cluster.address, "--ray-workers", "2"]
    with subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as driver:
        deadline = time.monotonic() + 120
        while not _items(index) and time.monotonic() < deadline:
            time.sleep(0.05)
        driver.kill()
    before = _items(index)
    assert 0 < before < IMAGES
    report = build_index(photos, index, run=ON_RAY, **CELLS)
    assert report.added == IMAGES - before
    assert Contents.of(index).differences(local) == []


def test_the_second_driver_is_told(cluster: Any, photos: Path, tmp_path: Path) -> None:
    told: list[str] = []

    def begin_another(event: BuildEvent) -> None:
        if event.stage == "commit" and not told:
            with pytest.raises(IndexLockedError) as error:
                build_index(photos, tmp_path / "ray.diffsim", run=ON_RAY, **CELLS)
            told.append(str(error.value))

    build_index(photos, tmp_path / "ray.diffsim", run=ON_RAY, on_progress=begin_another, **CELLS)
    assert "another process is writing" in told[0]
    assert len(IndexReader(tmp_path / "ray.diffsim")) == IMAGES


def test_an_index_in_an_object_store(
    cluster: Any, photos: Path, tmp_path: Path, local: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers share no folder with the driver; a reader has a third one. They leave nothing on their machines."""
    url, before = f"s3://{BUCKET}/ray.diffsim", _scratch_folders()
    with object_server() as endpoint:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("DIFFSIM_MIRRORS", str(tmp_path / "driver"))
        build_index(photos, url, run=replace(ON_RAY, attention="lazy"), **CELLS)
        assert fill_index(url, order=["path"], run=ON_RAY).completed == IMAGES
        assert verify(url, pool=ON_RAY.pool) == []
        monkeypatch.setenv("DIFFSIM_MIRRORS", str(tmp_path / "reader"))
        assert Contents.of(existing_root(url)).differences(local) == []
        assert _scratch_folders() <= before


def _scratch_folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("diffsim-worker-*"))


def _items(index: Path) -> int:
    try:
        return len(IndexReader(index))
    except Exception:
        return 0
