"""Measure builds by one and two workers, and the parts that a simulation predicts them from."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval.calibration.sampling import plan_pairs
from retrieval.sample_images.pictures import MOTIFS, STYLES, draw
from retrieval.settings import BuildSettings
from tests.bench.cluster.building import BuildTimes

SIDE = 384  # px
SAMPLE = 128  # images from which the times of one image and one pair are taken
FEW = 16  # images from which the times of everything else are taken: too few for percentiles
ONE = BuildSettings(device="cpu", workers=1)
STAGES = ("import and plan", "open workers", "encode", "pairs", "rest")


@dataclass(frozen=True)
class Phases:
    """Seconds of the parts of one build, from the start of its process to its end."""

    imports: float
    plan: float  # listing, comparing, and loading the models
    open: float  # from there until the first worker is open; 0 without workers
    encode: float  # from there to the last commit
    pairs: float  # percentiles
    rest: float  # opening the index, ending the workers and this process
    image: float  # of an image after the first batch
    work: float  # of the processor, for such an image, where there are no workers
    batch: int  # images
    commit: float  # the last one, from the answer of its worker on
    modes: int

    @property
    def stages(self) -> tuple[float, ...]:
        """The seconds in the order of :data:`STAGES`."""
        return (self.imports + self.plan, self.open, self.encode, self.pairs, self.rest)

    @property
    def seconds(self) -> float:
        """The whole build."""
        return sum(self.stages)


def draw_images(folder: Path, count: int) -> Path:
    """Draw ``count`` different JPEGs; files of an earlier run stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:04d}.jpg"
        if not path.exists():
            variant, rest = divmod(number, len(STYLES) * len(MOTIFS))
            pixels = draw(STYLES[rest % len(STYLES)], MOTIFS[rest // len(STYLES)], SIDE, variant=variant)
            Image.fromarray(pixels).save(path, quality=90)
    return folder


def build(photos: Path, index: Path, model: str, images: int, workers: int) -> Phases:
    """Have a process of its own index the first ``images``, as the command does it; 0 ``workers``: alone."""
    module, begin = "tests.bench.cluster.one_build", time.time()
    command = [sys.executable, "-m", module, str(photos), str(index), model, str(images), str(workers)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=one_thread)
    end, at = time.time(), json.loads(done.stdout)
    opened, later = at.get("opened", at["loaded"]), at["added"] - at["first_images"]
    pairs = at["pairs"] - at["pairs_begin"]
    return Phases(
        imports=at["imported"] - begin,
        plan=at["loaded"] - at["imported"],
        open=opened - at["loaded"],
        encode=at["commit"] - opened,
        pairs=pairs,
        rest=end - at["commit"] - pairs,
        image=(at["commit"] - at["first"]) / max(1, later),
        work=at["work"] / max(1, later),
        batch=int(at["first_images"]),
        commit=at["commit"] - at.get("answered", at["commit"]),
        modes=int(at["modes"]),
    )


def fastest(builds: list[Phases]) -> Phases:
    """Return the build that took least."""
    return min(builds, key=lambda phases: phases.seconds)


def times_of(here: list[Phases], few: list[Phases], images: int, cores: float) -> BuildTimes:
    """Return the times of a simulation of ``images``, each the least that was measured.

    Args:
        here: builds of SAMPLE images without workers.
        few: builds of FEW images by one worker.
        images: to index in the simulation.
        cores: of the machine.
    """
    alone = fastest(here)
    sample, wanted = (_pairs_of(count) for count in (SAMPLE, images))
    pair = min(each.pairs for each in here) / (alone.modes * sample[1])
    return BuildTimes(
        before=min(each.imports + each.plan for each in few),
        startup=min(each.open for each in few),
        image=min(each.image for each in here),
        work=min(each.work for each in here),
        commit=min(each.commit for each in few),
        commit_segment=0.0,
        after=min(each.rest for each in few),
        blocks=alone.modes * wanted[0],
        block=pair * wanted[1] / wanted[0],
        batch=alone.batch,
        cores=cores,
    )


def _pairs_of(images: int) -> tuple[int, int]:
    """Return how many blocks and pairs percentiles take in each mode, where every stored image may ask."""
    plan = plan_pairs(np.arange(images), 1, False)
    return len(plan.blocks), plan.pairs
