"""What holds for every test: no network but loopback, a set number of threads, a plain environment; a small gallery.

Torch and FAISS compute on DIFFSIM_TEST_THREADS threads, one unless the variable says otherwise, and so do the
processes that tests start. A test may set another number: the next one begins with the common number again.
"""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.slices import examples

THREADS = int(os.environ.get("DIFFSIM_TEST_THREADS") or 1)
os.environ["OMP_NUM_THREADS"] = str(THREADS)  # read by torch and FAISS when a test first imports them
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin slow each other down beside other tests
SLOW_SECONDS = 3600

settings.register_profile("some", max_examples=examples(100), deadline=None)  # a busy machine misses any deadline
settings.load_profile("some")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give slow tests, and those on a GPU or a cluster, an hour each; pyproject.toml sets the time of all others."""
    for item in items:
        if {"slow", "gpu", "ray"} & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
        if getattr(config.option, "loadgroup", False) and (group := item.get_closest_marker("xdist_group")):
            _name_group(item, group.args[0])


def _name_group(item: pytest.Item, group: str) -> None:
    """Tell pytest-xdist the group as part of the test's id, which its version 3.8 does in vain with pytest 9.2."""
    try:
        from _pytest.nodeid import NodeId
    except ImportError:  # an older pytest, whose ids pytest-xdist writes
        return
    if not item.nodeid.endswith(f"@{group}"):
        item._id = NodeId.parse(f"{item.nodeid}@{group}")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Compute on the same number of threads before and after each test."""
    _set_threads()
    yield
    _set_threads()


def _set_threads() -> None:
    """Set the number where a library is imported; one imported later reads it from the environment."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(THREADS)
    if faiss := sys.modules.get("faiss"):
        faiss.omp_set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test tried to reach {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what a developer's shell could change."""
    monkeypatch.delenv("DIFFSIM_INDEX", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture(scope="session", autouse=True)
def _no_flushing() -> Iterator[None]:
    """Spare the disk: a power failure would end the tests as well, and those of flushes watch the calls."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, lambda descriptor: None, raising=False)
        yield


def _made_once(factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], object]) -> Path:
    """Return the folder ``name``; of processes that test side by side, the first that asks lets ``fill`` fill it."""
    from filelock import FileLock

    base = factory.getbasetemp()
    place = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shared"
    place.mkdir(exist_ok=True)
    with FileLock(place / f"{name}.lock"):
        if not (place / f"{name}.whole").exists():
            (place / name).mkdir()  # raises where an earlier try failed
            fill(place / name)
            (place / f"{name}.whole").touch()
    return place / name


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five drawn styles x eight motifs, 96 px; tests must not change them."""
    return _made_once(tmp_path_factory, "gallery", _draw)


def _draw(folder: Path) -> None:
    from PIL import Image

    from retrieval.sample_images.pictures import MOTIFS, STYLES, draw

    for style in STYLES[:5]:
        (folder / style).mkdir()
        for motif in MOTIFS:
            Image.fromarray(draw(style, motif, size=96)).save(folder / style / f"{motif}.png")


@pytest.fixture(scope="session")
def index(gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery, indexed with the embedded model; tests must not change it."""
    from retrieval.indexing.build import build_index

    def fill(folder: Path) -> None:
        build_index(gallery, folder / "gallery.diffsim", model="cells")

    return _made_once(tmp_path_factory, "index", fill) / "gallery.diffsim"


@pytest.fixture(scope="session")
def copies_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawn pictures and eight copies of three of them, indexed without weights; tests must not change it."""
    from retrieval.indexing.build import build_index
    from tests.support.copied_pictures import draw_with_copies

    def fill(folder: Path) -> None:
        build_index(draw_with_copies(folder / "pictures"), folder / "copies.diffsim", model="cells")

    return _made_once(tmp_path_factory, "copies", fill) / "copies.diffsim"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A Ray cluster of three nodes with a processor each, at 127.0.0.2 to 127.0.0.4, for tests marked ray."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", PYTHONPATH=os.getcwd())
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "node_ip_address": "127.0.0.2"})
    for number in (3, 4):
        made.add_node(num_cpus=1, node_ip_address=f"127.0.0.{number}")
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def tiny() -> Iterator[None]:
    """Every model is the tiny one."""
    from tests.support.stub_models import tiny_model

    with tiny_model():
        yield
