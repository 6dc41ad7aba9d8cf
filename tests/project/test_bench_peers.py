"""The comparison with other libraries, at small sizes: peers that are installed find and read the same as ours."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.bench.peers import reading, rerank
from tests.bench.peers.coarse import exact, recall, write_clustered
from tests.bench.peers.coarse_peers import PACKAGE_OF, PEERS, coarse_peer
from tests.bench.peers.tables import Spread, installed, interleaved, keep
from tests.bench.published import published_loop

DIM, ROWS, COUNT = 16, 900, 20


@pytest.mark.parametrize("name", PEERS)
def test_each_installed_peer_finds_near_vectors_and_new_ones(name: str, tmp_path: Path) -> None:
    if installed(PACKAGE_OF.get(name, name)) is None:
        pytest.skip(f"{name} is not installed here; make bench-peers installs it")
    write_clustered(tmp_path / "vectors.npy", ROWS, DIM)
    stored, peer = np.load(tmp_path / "vectors.npy"), coarse_peer(name)
    peer.build(stored[:-9], tmp_path / "built", 1)
    opened = coarse_peer(name)
    opened.open(tmp_path / "built", 1)
    queries = stored[:8].astype(np.float32)
    found = opened.search(queries, COUNT, opened.knobs[-1])
    assert found.shape == (8, COUNT)
    assert recall(found, exact(stored[:-9], queries), COUNT) > 0.9
    opened.add(stored[-9:], ROWS - 9)
    newest = opened.search(stored[-1:].astype(np.float32), COUNT, opened.knobs[-1])
    assert newest[0, 0] == ROWS - 1


def test_the_exact_neighbours_are_those_of_one_matrix_product(tmp_path: Path) -> None:
    write_clustered(tmp_path / "vectors.npy", ROWS, DIM)
    stored = np.load(tmp_path / "vectors.npy").astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=2e-3)
    found = exact(stored.astype(np.float16), stored[:3])
    right = np.argsort(-(stored[:3] @ stored.T), axis=1)
    assert recall(found, right, 10) == 1
    assert recall(right[:, ::-1], right, 10) == 0


def test_the_plain_arithmetic_gives_the_scores_of_the_published_loop() -> None:
    shape = (5, 2, 3, 7, 4, 6)
    query, candidates = rerank._tensors(shape, 1), rerank._tensors(shape, 5)
    torch.testing.assert_close(rerank.batched(query, candidates), published_loop(query, candidates))


def test_readers_return_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SHAPE", (2, 1, 4, 3))
    first, wanted = reading.write(tmp_path / "ours.zarr", 6), [4, 0]
    ours = reading._ours(first)()(wanted)
    readers = {"zarr": reading._zarr, "zarrs": reading._zarrs, "tensorstore": reading._tensorstore}
    right = [ours[name][number] for number in range(2) for name in "qkv"]
    for package, reader in readers.items():
        if installed(package):
            for one, other in zip(reader(tmp_path / "ours.zarr")()(wanted), right, strict=True):
                np.testing.assert_array_equal(one, other)
    if installed("lancedb"):
        table = reading._lance(tmp_path / "lance", 6)()(wanted)
        assert sorted(table["q"].to_pylist()) == sorted(ours["q"][number].tobytes() for number in range(2))


def test_figures_are_printed_and_kept_with_their_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = interleaved({"nothing": lambda: None, "something": lambda: sum(range(1000))}, rounds=4)
    assert times["nothing"].low <= times["nothing"].median <= times["nothing"].high
    assert times["something"].runs == 4
    keep(tmp_path, "sums", ("way", "ms"), [{"way": "one", "ms": Spread.of([1, 2, 3]), "more": 0.5}], items=7)
    kept = json.loads((tmp_path / "sums.json").read_text())
    assert kept["rows"] == [{"way": "one", "ms": {"median": 2, "low": 1.5, "high": 2.5, "runs": 3}, "more": 0.5}]
    assert kept["about"]["items"] == 7
    assert "| one | 2 (1.5 to 2.5) |" in capsys.readouterr().out
