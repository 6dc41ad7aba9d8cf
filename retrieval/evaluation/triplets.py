"""Triplets, where most benchmarks begin: a reference, the image that is nearer to it, and the one that is not."""

import csv
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import UsageError
from retrieval.images.discovery import find_images

TRIPLETS = 2000  # what the paper draws
COLUMNS = ("reference", "nearer", "farther")


@dataclass(frozen=True)
class Triplet:
    """A metric is right when it finds ``nearer`` closer to ``reference`` than ``farther``; a tie counts half."""

    reference: Path
    nearer: Path
    farther: Path
    part: str = ""  # a subset that is reported apart
    category: str = ""  # what a prompt of its own may name


Groups = Mapping[str, Sequence[Path]]
"""Images by the name of their group, both sorted."""


def images_of(triplets: Sequence[Triplet]) -> tuple[list[Path], list[Path]]:
    """Return the images that queries and gallery need, each once, sorted."""
    queries = {triplet.reference for triplet in triplets}
    gallery = {path for triplet in triplets for path in (triplet.nearer, triplet.farther)}
    return sorted(queries), sorted(gallery)


def read_groups(folder: Path, kind: str = "group") -> Groups:
    """Return the images below ``folder`` by the folder that each lies in, relative to ``folder``.

    What a folder stands for, ``kind``, is for the messages.

    Raises:
        UsageError: no images, or one group only; the message says what was expected.
    """
    need_folder(folder, f"one folder a {kind} is expected there")
    root = folder.resolve()
    groups: dict[str, list[Path]] = {}
    for path in find_images([folder.resolve()]).files:
        groups.setdefault(path.parent.relative_to(root).as_posix(), []).append(path)
    groups.pop(".", None)  # images beside the groups belong to none
    if not groups:
        raise UsageError(f"{folder} holds no folders with images: one folder a {kind} is expected")
    if len(groups) == 1:
        (name,) = groups
        empty = [path.name for path in sorted(root.iterdir()) if path.is_dir() and path.name not in name.split("/")]
        beside = f"; no images in {', '.join(empty[:3])}" if empty else ""
        raise UsageError(f"{folder} holds one {kind} only ({name}{beside}): two or more are needed to compare")
    return dict(sorted(groups.items()))


def draw_triplets(groups: Groups, count: int, seed: int) -> list[Triplet]:
    """Draw the published style protocol: A and B from one group, C from another, every draw independent.

    Groups of one image take no part, as in the published code, which draws in this order: two groups, two images of
    the first, one of the second. Its walk is unsorted; here it is sorted, so the triplets are the same everywhere.

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
    """Read a CSV with the columns reference, nearer, farther and, if wanted, part; paths relative to the file.

    Raises:
        UsageError: no such file, a missing column, an empty file, or an image that is not there.
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
    """Return the rows of a CSV with their line numbers, read by the names of its columns.

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
    lacking = [column for column in columns if column not in names]
    if lacking:
        raise UsageError(f"{file} has no column {lacking[0]}; it has: {', '.join(names) or 'none'}")
    if not rows:
        raise UsageError(f"{file} has no rows")
    return rows


def need_folder(folder: Path, expected: str) -> None:
    """Raise a UsageError that says what was ``expected`` where ``folder`` is none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} {'is no folder' if folder.exists() else 'does not exist'}: {expected}")
