"""Triplets, the data of most benchmarks: a reference, an image nearer to it, and an image farther from it."""

import csv
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import UsageError
from retrieval.images.discovery import find_images

TRIPLETS = 2000  # as many as the paper draws
COLUMNS = ("reference", "nearer", "farther")


@dataclass(frozen=True)
class Triplet:
    """A metric is right if it scores ``nearer`` closer to ``reference`` than ``farther``; a tie counts half."""

    reference: Path
    nearer: Path
    farther: Path
    part: str = ""  # a subset that is reported separately
    category: str = ""  # the word for {category} in a prompt


ImageGroups = Mapping[str, Sequence[Path]]
"""Images by the name of their group; groups and images are sorted."""


def images_of(triplets: Sequence[Triplet]) -> tuple[list[Path], list[Path]]:
    """Return the images of the query side and of the gallery side, sorted, each once."""
    queries = {triplet.reference for triplet in triplets}
    gallery = {path for triplet in triplets for path in (triplet.nearer, triplet.farther)}
    return sorted(queries), sorted(gallery)


def read_groups(folder: Path, kind: str = "group") -> ImageGroups:
    """Return the images below ``folder`` by their own folder, relative to ``folder``.

    Args:
        folder: holds one folder for each group.
        kind: the word for a group in messages.

    Raises:
        UsageError: no images, or one group only.
    """
    need_folder(folder, f"one folder for each {kind} is expected there")
    root = folder.resolve()
    groups: dict[str, list[Path]] = {}
    for path in find_images([folder.resolve()]).files:
        groups.setdefault(path.parent.relative_to(root).as_posix(), []).append(path)
    groups.pop(".", None)  # images directly in `folder` belong to no group
    if not groups:
        raise UsageError(f"{folder} holds no folders with images: one folder for each {kind} is expected")
    if len(groups) == 1:
        (name,) = groups
        empty = [path.name for path in sorted(root.iterdir()) if path.is_dir() and path.name not in name.split("/")]
        beside = f"; no images in {', '.join(empty[:3])}" if empty else ""
        raise UsageError(f"{folder} holds one {kind} only ({name}{beside}): a comparison needs two or more")
    return dict(sorted(groups.items()))


def draw_triplets(groups: ImageGroups, count: int, seed: int) -> list[Triplet]:
    """Draw the published style protocol: A and B from one group, C from another, every draw independent.

    The order of draws is the published code's: two groups, two images of the first, one of the second. Groups of one
    image are left out, as there. That code walks folders unsorted; here they are sorted, so that the triplets are the
    same on every machine.

    Raises:
        UsageError: fewer than two groups of two images or more.
    """
    usable = {name: list(paths) for name, paths in sorted(groups.items()) if len(paths) >= 2}
    if len(usable) < 2:
        alone = ", ".join(list(groups)[:3])
        raise UsageError(f"triplets need two groups of two or more images, and there are {len(usable)} (of: {alone})")
    names, chance = list(usable), random.Random(seed)
    drawn = []
    for _ in range(count):
        own, other = chance.sample(names, 2)
        reference, nearer = chance.sample(usable[own], 2)
        drawn.append(Triplet(reference, nearer, chance.choice(usable[other])))
    return drawn


def read_triplets(file: Path) -> list[Triplet]:
    """Read a CSV with the columns reference, nearer, farther and optionally part; paths are relative to the file.

    Raises:
        UsageError: a missing file, column or image, or an empty file.
    """
    rows = read_csv(file, COLUMNS)
    found = []
    for line, row in rows:
        reference, nearer, farther = (file.parent / row[column] for column in COLUMNS)
        missing = [path for path in (reference, nearer, farther) if not path.is_file()]
        if missing:
            raise UsageError(f"{file}, line {line}: {missing[0]} does not exist")
        found.append(Triplet(reference, nearer, farther, row.get("part", "")))
    return found


def read_csv(file: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a CSV by column name, with their line numbers.

    Raises:
        UsageError: no such file, a missing column, or no rows.
    """
    if not file.is_file():
        raise UsageError(f"{file} does not exist: a CSV with the columns {', '.join(columns)} is expected there")
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = [(reader.line_num, {k: v or "" for k, v in row.items() if k is not None}) for row in reader]
            names = reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file} can't be read as CSV: {error}") from error
    missing = [column for column in columns if column not in names]
    if missing:
        raise UsageError(f"{file} has no column {missing[0]}; it has: {', '.join(names) or 'none'}")
    if not rows:
        raise UsageError(f"{file} has no rows")
    return rows


def need_folder(folder: Path, expected: str) -> None:
    """Raise a UsageError that names the ``expected`` content unless ``folder`` is a folder."""
    if not folder.is_dir():
        raise UsageError(f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}: {expected}")
