"""Builds that add a mode, and fills, killed at random moments."""

import random
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from retrieval.indexing.build import build_index
from retrieval.indexing.fill import fill_index
from tests.slices import EVERY
from tests.support.kill.child import Child, Say
from tests.support.kill.looks import BATCH, REAL, SEED, keep_contents, look_partial, reporting_batches
from tests.support.sample_index import paint

ADDITION_IMAGES = 36
ADDITION_KILLS = 12 if EVERY else 4
BOTH = ["style", "instance"]


def kill_additions(folder: Path) -> dict[str, Any]:
    """Kill builds that add a mode, then fills; each continues from the files that the last one left."""
    random_numbers = random.Random(SEED + 1)
    photos, whole = folder / "more", folder / "more.diffsim"
    paint(photos, range(ADDITION_IMAGES))

    def prepare(say: Say) -> None:
        for name, modes, rule in (("more", BOTH, "eager"), ("add", BOTH[:1], "eager"), ("fill", BOTH, "lazy")):
            run = replace(REAL, attention=rule)
            index = folder / f"{name}.diffsim"
            # Modes that share their tensors would have nothing to add.
            build_index(photos, index, model="cells", modes=modes, image_size=64, codec="qkv-float16", run=run)
        keep_contents(whole)
        say(add=look_partial(folder / "add.diffsim", whole), fill=look_partial(folder / "fill.diffsim", whole))

    started = time.monotonic()
    first = Child(prepare).wait()[0][0]
    pace = (time.monotonic() - started) / 3 / (ADDITION_IMAGES / BATCH)
    kills: list[dict[str, Any]] = []
    finished: list[dict[str, Any]] = []
    for kind in ("add", "fill"):
        wanted = len(kills) + ADDITION_KILLS // 2
        while len(kills) < wanted:
            index = folder / f"{kind}-{len(kills)}.diffsim"
            shutil.copytree(folder / f"{kind}.diffsim", index)
            before, ended = first[kind], False
            while not ended:
                moment = random_numbers.randrange(1, 7), random_numbers.uniform(0, pace)
                after, computed, ended = one_addition(
                    photos, index, whole, kind, moment if len(kills) < wanted else None
                )
                kills += [] if ended else [{"kind": kind, "before": before, "after": after, "computed": computed}]
                before = after
            finished.append({"kind": kind, **after})
    return {"kills": kills, "finished": finished}


def one_addition(
    photos: Path, index: Path, whole: Path, kind: str, moment: tuple[int, float] | None
) -> tuple[dict[str, Any], int, bool]:
    """Add or fill, kill after ``moment`` (batches, seconds), and compare; ``None`` runs to the end."""

    def work(say: Say) -> None:
        with reporting_batches(say):
            if kind == "add":
                build_index(photos, index, modes=BOTH[1:], run=REAL)
            else:
                fill_index(index, run=REAL, order=["oldest"])

    child = Child(work)
    lines = child.lines()
    computed = 0
    if moment is not None:
        batches, seconds = moment
        computed = sum(next(lines, {}).get("computing", 0) for _ in range(batches))
        time.sleep(seconds)
        child.kill()
    rest, killed = child.wait()
    after = Child(lambda say: say(**look_partial(index, whole))).wait()[0][0]
    return after, computed + sum(line["computing"] for line in rest), not killed
