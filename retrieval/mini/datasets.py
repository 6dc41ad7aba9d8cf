"""Image sets for evaluation: folders of groups, human triplets, ordered distortions; and views of them.

A set is read once, at 256 pixels a side. ``grey`` and ``off_centre`` make harder copies of it.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.images import DecodeRules, read_image, resize_square
from retrieval.mini.measures import Labels
from retrieval.mini.world import make_groups
from retrieval.vocabulary import WorldKind

SIZE = 256
CROP = 0.7  # of the side that an off-centre copy keeps
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Groups:
    """Images ``[n, 256, 256, 3]`` and their groups ``[n]``."""

    images: Images
    labels: Labels


@dataclass(frozen=True)
class Triplets:
    """Images, triplets ``[m, 3]`` (query, nearer, farther), and which of them were sampled at random."""

    images: Images
    triplets: Labels
    random: NDArray[np.bool_]


@dataclass(frozen=True)
class Levels:
    """Images and ordered pairs: triplets (reference, lower level, higher level of one series)."""

    images: Images
    triplets: Labels


def load_groups(folder: Path) -> Groups:
    """Read a folder of folders, one a group, in the order of their names."""
    groups = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [sorted(f for f in group.rglob("*") if f.suffix.lower() in SUFFIXES) for group in groups]
    labels = np.repeat(np.arange(len(groups)), [len(f) for f in files])
    return Groups(read_all(f for group in files for f in group), labels)


def load_votes(folder: Path) -> Triplets:
    """Read human votes: ``votes.csv`` with columns id, page_section, human (0 or 1), and ref, d0, d1 in each folder."""
    rows = [row for row in _table(folder / "votes.csv") if (folder / row["id"]).is_dir()]
    files = [folder / row["id"] / f"{name}.jpg" for row in rows for name in ("ref", "d0", "d1")]
    first = 3 * np.arange(len(rows))
    human = np.array([int(row["human"]) for row in rows])
    triplets = np.stack([first, first + 1 + human, first + 2 - human], axis=1)
    return Triplets(read_all(files), triplets, np.array(["random" in row["page_section"] for row in rows]))


def load_levels(folder: Path) -> Levels:
    """Read distortions: ``levels.csv`` with columns file, reference, distortion, level."""
    rows = [row for row in _table(folder / "levels.csv") if (folder / row["file"]).exists()]
    names = sorted({row["file"] for row in rows} | {row["reference"] for row in rows})
    number = {name: n for n, name in enumerate(names)}
    triplets = [
        (number[a["reference"]], number[a["file"]], number[b["file"]])
        for a in rows
        for b in rows
        if (a["reference"], a["distortion"]) == (b["reference"], b["distortion"]) and int(a["level"]) < int(b["level"])
    ]
    return Levels(read_all(folder / name for name in names), np.array(triplets, np.int64))


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


def _table(path: Path) -> Sequence[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
