"""The simulation of a cluster agrees with arithmetic where that is easy, and finds the part that holds it up."""

from dataclasses import replace

import pytest

from retrieval.indexing.workers.driver import LAST_BATCHES, rows_of_next_job
from tests.bench.cluster.building import BuildTimes, simulate_build
from tests.bench.cluster.searching import SearchTimes, simulate_search

TIMES = BuildTimes(before=5, startup=10, image=0.1, work=0.1, commit=0.01, commit_segment=0.0, after=2, batch=8)
SEARCH = SearchTimes(encode=0.01, scan=0.5, candidate=0.002, candidates=200, query_bytes=4e6, network=1e9)


def test_one_worker_takes_the_sum_of_all_parts() -> None:
    run = simulate_build(TIMES, 10_000, 1)
    assert run.seconds == pytest.approx(5 + 10 + 10_000 * 0.1 + 2, rel=0.001)
    assert run.limit == "the workers"


@pytest.mark.parametrize("workers", [2, 4, 16])
def test_workers_share_the_images_to_the_end(workers: int) -> None:
    run = simulate_build(TIMES, 100_000, workers)
    assert run.encoding == pytest.approx(100_000 * 0.1 / workers, rel=0.05)


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({"commit": 5.0}, "commits, one after another"),
        ({"cores": 2}, "cores"),
        ({"image_bytes": 1e6, "network": 1e5}, "a worker's network"),
        ({"image_bytes": 1e6, "store": 1e6}, "the store"),
    ],
)
def test_every_part_may_hold_a_build_up(change: dict[str, float], limit: str) -> None:
    assert simulate_build(replace(TIMES, **change), 100_000, 32).limit == limit


def test_a_long_list_of_segments_holds_nobody_up_because_they_are_committed_together() -> None:
    short, long = (simulate_build(replace(TIMES, commit_segment=each), 1_000_000, 32) for each in (0.0, 0.01))
    assert long.segments == pytest.approx(short.segments, rel=0.2)
    assert long.encoding < 1.2 * short.encoding


def test_workers_share_the_pairs_of_percentiles() -> None:
    drawn = replace(TIMES, blocks=19, block=2.0)
    for workers, seconds in ((1, 38.0), (2, 20.0), (32, 2.0)):
        without, run = (simulate_build(times, 1000, workers) for times in (TIMES, drawn))
        assert run.pairs == seconds
        assert run.seconds == pytest.approx(without.seconds + seconds)


def test_too_few_images_leave_workers_without_any() -> None:
    assert simulate_build(TIMES, 64, 8).limit.startswith("the last segments")


@pytest.mark.parametrize(("left", "workers", "batch"), [(400, 2, 8), (1, 4, 8), (10_000, 3, 4), (33, 2, 2)])
def test_the_last_jobs_are_small(left: int, workers: int, batch: int) -> None:
    while left > 0:
        rows = rows_of_next_job(1024, left, workers, batch)
        assert rows % batch == 0
        assert rows <= max(LAST_BATCHES * batch, left / (2 * workers) + batch)
        left -= rows


def test_replicas_share_the_work_until_the_router_has_no_more() -> None:
    runs = [simulate_search(SEARCH, replicas, 500) for replicas in (1, 2, 4, 64)]
    assert runs[1].most_per_second == pytest.approx(2 * runs[0].most_per_second, rel=0.05)
    assert runs[0].limit == runs[1].limit == "replicas"
    assert runs[3].limit == "the router's network"
    assert runs[2].p50 < runs[0].p50 <= runs[0].p99
