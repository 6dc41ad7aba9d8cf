"""`python -m tests.bench.cluster FOLDER [--images 400] [--model mini]`: builds by workers and searches over replicas.

The first table compares a simulation with builds by one and two processes, one thread each, stage by stage: each build
is a process of its own, timed from its start to its end, and the simulation's own parts are measured between them. Two
builds at once that share nothing but the machine tell how many times as fast its cores let two workers be. The others
simulate clusters from rates of this machine: 1 to 256 workers, 1 to 64 replicas, with an object store's latency.
FOLDER keeps the images.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from retrieval.indexing.capacity.measuring import measure_rates
from retrieval.indexing.capacity.rates import Rates, missing_rates, read_rates
from tests.bench.cluster.building import BuildTimes, simulate_build
from tests.bench.cluster.measuring import FEW, ONE, SAMPLE, STAGES, Phases, build, draw_images, fastest, times_of
from tests.bench.cluster.searching import SearchTimes, simulate_search

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
REPLICAS = (1, 2, 4, 8, 16, 32, 64)
LATENCY, REQUESTS = 0.03, 6  # of an object store; requests of a commit, one after another
NETWORK, STORE = 1.25e9, 12.5e9  # bytes a second: 10 Gbit/s a machine, 100 Gbit/s the store
DISK = 2e9  # bytes a second
PROBED = 0.05


def compare(photos: Path, model: str, images: int, rounds: int) -> tuple[BuildTimes, list[str]]:
    """Measure builds by one and two processes and the parts of a simulation in turns, and compare the fastest."""
    found: dict[tuple[int, int], list[Phases]] = {(SAMPLE, 0): [], (FEW, 1): [], (images, 1): [], (images, 2): []}
    apart: list[Phases] = []
    folder = Path(tempfile.mkdtemp())
    try:
        for turn in range(rounds):
            for (count, workers), builds_ in found.items():
                builds_.append(build(photos, folder / f"{turn}-{count}-{workers}.diffsim", model, count, workers))
            with ThreadPoolExecutor(2) as both:
                own = [folder / f"{turn}-{place}.diffsim" for place in "ab"]
                apart += both.map(lambda index: build(photos, index, model, images, 1), own)
    finally:
        shutil.rmtree(folder)
    times = times_of(found[SAMPLE, 0], found[FEW, 1], images, os.cpu_count() or 1)
    best = {workers: fastest(found[images, workers]) for workers in (1, 2)}
    most = 2 * best[1].encode / min(each.encode for each in apart)
    return times, [*table(times, images, best), f"two builds at once against one: encode {most:.2f} x"]


def table(times: BuildTimes, images: int, best: dict[int, Phases]) -> list[str]:
    """Return a row for each stage of the builds by one and two workers, measured and simulated."""
    rows = ["stage | " + " | ".join(f"{workers} measured s | simulated s | difference" for workers in best)]
    runs = {workers: simulate_build(times, images, workers) for workers in best}
    simulated = {workers: (times.before, times.startup, run.encoding, run.pairs, times.after, run.seconds)
                 for workers, run in runs.items()}  # fmt: skip
    measured = {workers: (*found.stages, found.seconds) for workers, found in best.items()}
    for number, stage in enumerate((*STAGES, "whole")):
        cells = [(measured[workers][number], simulated[workers][number]) for workers in best]
        rows.append(f"{stage} | " + " | ".join(f"{m:.2f} | {s:.2f} | {s / max(m, 1e-9) - 1:+.0%}" for m, s in cells))
    one, two = measured[1], measured[2]
    rows.append(f"two workers against one: encode {one[2] / two[2]:.2f} x, pairs {one[3] / two[3]:.2f} x, "
                f"whole build {one[-1] / two[-1]:.2f} x")  # fmt: skip
    warm = [sum(each[2:-1]) for each in (one, two)]
    rows.append(f"from the first worker's start of work on: {warm[0] / warm[1]:.2f} x")
    return rows


def builds(rates: Rates, images: int) -> list[str]:
    """Simulate builds on clusters whose workers have a device and 16 cores each."""
    image = max(rates.compute_seconds, rates.write_seconds, rates.decode_seconds / 16)
    times = BuildTimes(
        before=images / 1000 * LATENCY,
        startup=rates.startup_seconds + 10,
        image=image,
        work=0.0,
        commit=rates.commit_seconds,
        commit_segment=rates.commit_segment_seconds,
        image_bytes=rates.image_bytes,
        stored_bytes=rates.tensor_bytes + rates.vector_bytes + rates.beside_bytes,
        network=NETWORK / 8,
        store=STORE,
        latency=LATENCY,
        requests=REQUESTS,
    )
    rows = ["workers | hours | images/s | against one | efficiency | workers busy | driver busy | held up by"]
    one = simulate_build(times, images, 1).seconds
    for workers in WORKERS:
        run = simulate_build(times, images, workers)
        gain = one / run.seconds
        rows.append(
            f"{workers} | {run.seconds / 3600:.2f} | {images / run.seconds:.0f} | {gain:.1f} x | "
            f"{gain / workers:.0%} | {run.busy:.0%} | {run.driver:.0%} | {run.limit}"
        )
    return rows


def searches(rates: Rates, images: int) -> list[str]:
    """Simulate searches over replicas with a device each."""
    times = SearchTimes(
        encode=rates.encode_seconds,
        scan=rates.scan_seconds * PROBED * images / 1e6,
        candidate=rates.score_seconds + rates.candidate_bytes / DISK,
        candidates=200,
        query_bytes=rates.query_bytes,
        network=NETWORK,
    )
    rows = ["replicas | searches/s | against one | p50 ms | p99 ms | held up by"]
    one = simulate_search(times, 1).most_per_second
    for replicas in REPLICAS:
        run = simulate_search(times, replicas)
        rows.append(
            f"{replicas} | {run.most_per_second:.1f} | {run.most_per_second / one:.1f} x | {1e3 * run.p50:.0f} | "
            f"{1e3 * run.p99:.0f} | {run.limit}"
        )
    return rows


def main() -> None:
    """Read the command line, measure, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--items", type=int, default=10_000_000, help="images of the simulated clusters")
    parser.add_argument("--rates", type=Path, help="rates of the simulated clusters, such as a plan's --json")
    parser.add_argument("--no-builds", action="store_true", help="simulate only")
    asked = parser.parse_args()
    photos = draw_images(asked.folder / "drawn", max(asked.images, SAMPLE))
    if not asked.no_builds:
        times, rows = compare(photos, asked.model, asked.images, asked.rounds)
        print(json.dumps(asdict(times)), file=sys.stderr)
        print("\n".join(rows), end="\n\n")
    given = read_rates(asked.rates) if asked.rates else {}
    measured = measure_rates([photos], run=ONE, model=asked.model).to_json() if missing_rates(given) else {}
    rates = Rates.from_json({**measured, **given})
    print(f"{asked.items} images, {rates.model} on {rates.device}")
    print("\n".join(builds(rates, asked.items)), end="\n\n")
    print("\n".join(searches(rates, asked.items)))


if __name__ == "__main__":
    main()
