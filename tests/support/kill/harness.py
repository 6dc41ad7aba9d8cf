"""Kill builds with SIGKILL and look at what is left. Linux only.

``python -m tests.support.kill.harness FOLDER`` reads the name of a scenario a line and answers with one line of JSON.
It is a process of its own that imports everything first and then forks a child for every build, since importing torch
takes longer than a build. The parent computes nothing: a fork after threads have worked may hang.
"""

import gc
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import faiss  # noqa: F401  (imported here so that no child has to)
import filelock  # noqa: F401
import torch
import zarr.codecs
import zarr.storage  # noqa: F401

import retrieval.models.cells.attention
import retrieval.models.cells.pooled  # noqa: F401
from retrieval.indexing.build import build_index
from retrieval.search.engine import Engine
from retrieval.settings import EngineSettings
from tests.slices import EVERY
from tests.support.kill.additions import kill_additions
from tests.support.kill.child import Child, Say
from tests.support.kill.looks import BATCH, REAL, SEED, keep_contents, look, reporting_batches
from tests.support.kill.operations import kill_at_operations
from tests.support.ranking import assert_same_ranking
from tests.support.sample_index import paint

IMAGES = 60
KILLS = 20 if EVERY else 4


def kill_at_random(folder: Path) -> dict[str, Any]:
    """Kill builds until enough were hit; every build goes on from what the last one left."""
    random_numbers = random.Random(SEED)
    photos, whole = folder / "photos", folder / "whole.diffsim"
    paint(photos, range(IMAGES))
    started = time.monotonic()
    Child(lambda say: build_reporting(photos, whole, say)).wait()
    pace = (time.monotonic() - started) / (IMAGES / BATCH)
    Child(lambda say: keep_contents(whole)).wait()
    kills: list[dict[str, Any]] = []
    finished: list[dict[str, Any]] = []
    done = False
    while not done:
        index = folder / f"{len(finished)}.diffsim"
        moment = random_numbers.randrange(IMAGES // BATCH // 2), random_numbers.uniform(0, pace)
        before, computed, ended = one_attempt(photos, index, whole, moment if len(kills) < KILLS else None)
        if kills and "after" not in kills[-1]:
            kills[-1]["after"] = before
        if ended:
            finished.append(compare_to_the_end(photos, index, whole))
            done = len(kills) == KILLS
        else:
            kills.append({"before": before, "computed": computed})
    return {"kills": kills, "finished": finished}


def one_attempt(
    photos: Path, index: Path, whole: Path, moment: tuple[int, float] | None
) -> tuple[dict[str, Any], int, bool]:
    """Look, build, and kill after so many batches and seconds.

    Returns:
        what was seen at first, how many images were computed then, and whether the build ended by itself.
    """

    def work(say: Say) -> None:
        say(**look(index, whole))
        build_reporting(photos, index, say)

    child = Child(work)
    lines = child.lines()
    before = next(lines)
    computed = 0
    if moment is not None:
        batches, seconds = moment
        for _ in range(batches):
            computed += next(lines, {}).get("computing", 0)
        time.sleep(seconds)
        child.kill()
    rest, killed = child.wait()
    return before, computed + sum(line["computing"] for line in rest), not killed


def build_reporting(photos: Path, index: Path, say: Say) -> None:
    """Build, and say of every batch that it is about to be computed."""
    with reporting_batches(say):
        build_index(photos, index, model="cells", modes=["style"], image_size=64, run=REAL)


def compare_to_the_end(photos: Path, index: Path, whole: Path) -> dict[str, Any]:
    """Compare a finished index with one that was never disturbed, searches included."""

    def work(say: Say) -> None:
        engines = [Engine.open(path, EngineSettings(device="cpu")) for path in (index, whole)]
        searches = []
        for query in sorted(photos.iterdir())[:: IMAGES // 3]:
            mine, expected = (engine.search(query, "style", exhaustive=True, k=IMAGES) for engine in engines)
            assert_same_ranking(mine.results, expected.results, whole=True)
            searches.append(len(mine.results))
        say(**look(index, whole), searches=searches)

    lines, _ = Child(work).wait()
    found: dict[str, Any] = lines[0]
    return found


SCENARIOS = {"random": kill_at_random, "additions": kill_additions, "operations": kill_at_operations}


def main() -> None:
    """Answer scenarios until the input ends."""
    torch.set_num_threads(1)
    gc.freeze()
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(SCENARIOS[line.strip()](folder)), flush=True)


if __name__ == "__main__":
    main()
