"""Whatever happens to one file of an index, a repair keeps every image, and all else that can still be read."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.indexing.upkeep.damage_matrix import (
    DAMAGES,
    STATES,
    Outcome,
    Start,
    examine,
    prepare,
    small_parts,
    victims,
)
from tests.support.paths import ROOT

SHARD = "attention/style/N.zarr/k/c/N/N/N/N/N"
CASES = {
    "fresh": [("current.json", "one bit"), ("projections/N.npz", "zeroed"), ("items/N/items.parquet", "deleted")],
    "compacted": [("items/N-N/rejects.parquet", "truncated"), ("items/N-N/vectors/descriptor.npy", "one bit")],
    "filled": [
        ("items/N/filled.npy", "swapped"),
        (SHARD, "one bit"),
        ("items/N/shards.json", "unreadable"),
    ],
    "lazy with cache": [("items/N/moved.parquet", "swapped"), ("CURRENT", "deleted")],
}


@pytest.fixture(
    scope="module",
    params=[state if state == "filled" else pytest.param(state, marks=pytest.mark.thorough) for state in STATES],
)
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Start]]:
    with small_parts():
        yield request.param, prepare(request.param, tmp_path_factory.mktemp("start"))


def test_a_repair_keeps_every_image_and_all_that_is_whole(start: tuple[str, Start], tmp_path: Path) -> None:
    state, whole = start
    found = victims(whole.index)
    for kind, damage in CASES[state]:
        outcome = examine(whole, found[kind], damage, tmp_path / "x.diffsim")
        assert outcome == Outcome(len(whole.paths), 0, 0, 0, 0, 0), f"{state}: {kind} {damage}"


def test_the_cases_name_damages_that_exist() -> None:
    assert {damage for cases in CASES.values() for _, damage in cases} == set(DAMAGES)


@pytest.mark.slow
def test_every_kind_of_file_in_every_state(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench.damage_table", str(tmp_path / "table")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert len(found.stdout.splitlines()) == 2 + len(STATES) * len(DAMAGES)
