"""Dreambench++ as DiffSim uses it: generated images that two groups of people rated against a reference."""

import json
import random
import re
from itertools import combinations
from pathlib import Path

from retrieval.errors import UsageError
from retrieval.evaluation.triplets import Triplet, need_folder

# A part of a pipeline folder's name, and the file of its ratings; the first match counts.
RATINGS = (
    ("blip_diffusion", "blip_diffusion-cp.json"),
    ("dreambooth", "dreambooth_sd-cp.json"),
    ("ip_adapter_plus_sdxl", "ip_adapter_plus_vit_h_sdxl-cp.json"),
    ("ip_adapter_sdxl", "ip_adapter_vit_g_sdxl-cp.json"),
    ("textual_inversion", "textual_inversion_sd-cp.json"),
)
MOST_APART = 2  # an image is left out if the two groups' ratings differ by more
LEAST_APART = 2  # a pair is left out if its mean ratings differ by less
PAIRS = 5  # at most, for each reference


def dreambench(folder: Path, seed: int) -> list[Triplet]:
    """Return up to 5 pairs for each reference, with mean ratings that differ by 2 or more, drawn in sorted order.

    Raises:
        UsageError: pipelines, ratings or images are not where they are expected.
    """
    need_folder(folder, "Dreambench++'s samples and data_human_rating are expected there")
    chance, found, seen = random.Random(seed), [], False
    for pipeline in sorted(path for path in folder.iterdir() if path.is_dir()):
        name = next((file for part, file in RATINGS if part in pipeline.name), None)
        if name is None:
            continue
        seen = True
        ratings = _mean_ratings(folder / "data_human_rating" / "merged_data", name)
        need_folder(pipeline / "src_image", f"the reference images of {pipeline.name} are expected there")
        for reference in sorted(path for path in (pipeline / "src_image").iterdir() if path.is_dir()):
            found += _triplets(pipeline, reference, ratings, chance)
    if not seen:
        raise UsageError(
            f"Dreambench++: {folder} holds no folder of a rated pipeline ({', '.join(p for p, _ in RATINGS)})"
        )
    if not found:
        raise UsageError(f"Dreambench++: {folder} holds no pair of images with ratings {LEAST_APART} apart")
    return found


def _mean_ratings(folder: Path, name: str) -> dict[str, float]:
    first, second = (_read_ratings(folder / group / name) for group in ("group1", "group2"))
    return {
        key: (value + second[key]) / 2
        for key, value in sorted(first.items())
        if key in second and abs(value - second[key]) <= MOST_APART
    }


def _read_ratings(file: Path) -> dict[str, float]:
    try:
        return {str(key): float(value) for key, value in json.loads(file.read_text("utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"Dreambench++: the ratings {file} can't be read: {error}") from error


def _triplets(pipeline: Path, reference: Path, ratings: dict[str, float], chance: random.Random) -> list[Triplet]:
    own = {key: mean for key, mean in ratings.items() if re.fullmatch(re.escape(reference.name) + r"\D*\d", key)}
    pairs = [(a, b) for a, b in combinations(own, 2) if abs(own[a] - own[b]) >= LEAST_APART]
    if len(pairs) > PAIRS:
        pairs = chance.sample(pairs, PAIRS)
    found = []
    for pair in pairs:
        near, far = sorted(pair, key=lambda key: -own[key])
        generated = pipeline / "tgt_image" / reference.name
        triplet = Triplet(
            reference / "0_0.jpg", generated / f"{near[-1]}_0.jpg", generated / f"{far[-1]}_0.jpg", pipeline.name
        )
        paths = (triplet.reference, triplet.nearer, triplet.farther)
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise UsageError(f"Dreambench++: {missing[0]} was rated but does not exist")
        found.append(triplet)
    return found
