"""Image sets for evaluation: folders of groups, human triplets, ordered distortions; and views of them.

A set is read once, at 256 pixels a side. ``grey`` and ``off_centre`` make harder copies of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.evaluation.benches import UNSELECTED, BenchOptions, describe_bench
from retrieval.evaluation.triplets import Triplet, read_groups
from retrieval.images import DecodeRules, read_image, resize_square
from retrieval.mini.measures import Labels
from retrieval.mini.world import make_groups
from retrieval.vocabulary import WorldKind

SIZE = 256
CROP = 0.7  # of the side that an off-centre copy keeps

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Groups:
    """Images ``[n, 256, 256, 3]`` and their groups ``[n]``."""

    images: Images
    labels: Labels


@dataclass(frozen=True)
class Triplets:
    """Images, triplets ``[m, 3]`` (query, nearer, farther), and which of them were drawn without a selection."""

    images: Images
    triplets: Labels
    unselected: NDArray[np.bool_]


def load_groups(folder: Path) -> Groups:
    """Read a folder of folders, one a group, in the order of their names."""
    groups = read_groups(folder)
    labels = np.repeat(np.arange(len(groups)), [len(paths) for paths in groups.values()])
    return Groups(read_all(path for paths in groups.values() for path in paths), labels)


def load_triplets(folder: Path, bench: str) -> Triplets:
    """Read a folder of one of ``diffsim-eval``'s benchmarks that are triplets."""
    found: Sequence[Triplet] = describe_bench(bench).load(folder, BenchOptions())
    files = [(triplet.reference, triplet.nearer, triplet.farther) for triplet in found]
    number = {path: n for n, path in enumerate(sorted({path for row in files for path in row}))}
    triplets = np.array([[number[path] for path in row] for row in files], np.int64)
    return Triplets(read_all(number), triplets, np.array([triplet.part == UNSELECTED for triplet in found]))


def procedural(kind: WorldKind, groups: int, views: int, seed: int) -> Groups:
    """Make a set of the procedural world, the one place where constants are chosen."""
    pictures = make_groups(kind, groups, views, seed=seed, size=SIZE).flatten(0, 1)
    return Groups(pictures.permute(0, 2, 3, 1).numpy(), np.repeat(np.arange(groups), views))


def grey(images: Images) -> Images:
    """Return greyscale copies, as three equal channels."""
    return np.stack([np.asarray(Image.fromarray(i).convert("L").convert("RGB")) for i in images])


def off_centre(groups: Groups) -> Groups:
    """Move subjects off centre: each image loses its border on two sides, another corner for each one of a group."""
    keep = round(CROP * SIZE)
    found = []
    for number, image in enumerate(groups.images):
        corner = int((groups.labels[:number] == groups.labels[number]).sum()) % 4
        top, left = ((SIZE - keep) * side for side in (corner // 2, corner % 2))
        found.append(resize_square(Image.fromarray(image[top : top + keep, left : left + keep]), SIZE))
    return replace(groups, images=np.stack(found))


def read_all(files: Iterable[Path]) -> Images:
    """Read files as ``[n, 256, 256, 3]``."""
    return np.stack([resize_square(read_image(file, DecodeRules())[0], SIZE) for file in files])


def resized(images: Images, size: int) -> Images:
    """Resize ``[n, 256, 256, 3]`` as the extractors' ``prepare`` does."""
    return np.stack([resize_square(Image.fromarray(image), size) for image in images])
