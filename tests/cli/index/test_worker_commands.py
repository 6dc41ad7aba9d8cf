"""Builds by several processes, and by machines without a scheduler, through the commands."""

import json
from pathlib import Path

import pytest

from index_store.reader import IndexReader
from tests.support.commands import failed, run_here
from tests.support.sample_index import paint


@pytest.fixture
def desk(tiny: None, tmp_path: Path) -> Path:
    """A working folder with photos, where every model is the tiny one."""
    paint(tmp_path / "photos", range(9))
    return tmp_path


def test_parts_are_built_and_committed(desk: Path) -> None:
    place = ("--index", "photos.diffsim")
    for part in ("1/2", "2/2"):
        built = run_here("diffsim-index", "worker", "photos", "--shard", part, *place, cwd=desk)
        assert built.returncode == 0, built.stderr
    assert not (desk / "photos.diffsim").exists()
    done = run_here("diffsim-index", "commit", *place, cwd=desk)
    assert done.stdout.decode() == "photos.diffsim: 9 images in 2 segments\n"
    found = run_here("diffsim-search", "photos/003.png", "--paths", "-k", "20", *place, cwd=desk)
    assert sorted(Path(line).name for line in found.stdout.decode().split()) == [f"{n:03d}.png" for n in range(9)]
    paint(desk / "photos", [20])
    for part in ("1/2", "2/2"):
        run_here("diffsim-index", "worker", "photos", "--shard", part, *place, cwd=desk)
    values = json.loads(run_here("diffsim-index", "commit", *place, "--json", cwd=desk).stdout)
    assert values["items"] == 10


def test_parts_that_make_no_sense(desk: Path) -> None:
    place = ("--index", "photos.diffsim")
    wrong = failed(run_here("diffsim-index", "worker", "photos", "--shard", "3/2", *place, cwd=desk), 2)
    assert "'3/2' is not a part: write i/n, like 3/16" in wrong
    assert "--index is needed" in failed(run_here("diffsim-index", "worker", "photos", "--shard", "1/2", cwd=desk), 2)
    assert "there are no parts in photos.diffsim-shards" in failed(
        run_here("diffsim-index", "commit", *place, cwd=desk), 3
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "2", "--ray", "local"], "choose one of --processes and --ray"),
        (["--ray-workers", "2"], "--ray-workers, --worker-cpus and --worker-gpus are of --ray"),
        (["--processes", "0"], "count must be at least 1, not 0"),
    ],
)
def test_workers_that_make_no_sense(desk: Path, options: list[str], message: str) -> None:
    assert message in failed(run_here("diffsim-index", "build", "photos", *options, cwd=desk), 2)


@pytest.mark.xdist_group("processes")
@pytest.mark.thorough
def test_processes_build_what_one_process_builds(tmp_path: Path) -> None:
    """With the embedded model of cells, because workers load what the index names."""
    paint(tmp_path / "photos", range(9))
    command = ("diffsim-index", "build", "photos", "--model", "cells", "--processes", "2", "--index", "two.diffsim")
    made = run_here(*command, cwd=tmp_path)
    assert b"two.diffsim: 9 images" in made.stdout, made.stderr
    assert len(IndexReader(tmp_path / "two.diffsim")) == 9
