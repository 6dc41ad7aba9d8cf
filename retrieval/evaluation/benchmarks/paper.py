"""Loaders of the paper's benchmarks."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from retrieval.errors import UsageError
from retrieval.evaluation.benchmarks.dreambench import dreambench
from retrieval.evaluation.benchmarks.nights import read_nights
from retrieval.evaluation.triplets import (
    TRIPLETS,
    Triplet,
    need_folder,
)
from retrieval.images.discovery import IMAGE_SUFFIXES
from retrieval.settings import PUBLISHED_SEED

Variant = Literal["code", "paper"]
IP_PAIRS = (("1.0", "0.6"), ("0.8", "0.4"), ("0.6", "0.3"), ("0.4", "0.35"), ("0.3", "0.2"))
TID_LEVELS: Mapping[Variant, tuple[int, int]] = {"code": (2, 3), "paper": (1, 5)}
NIGHTS_SPLIT: Mapping[Variant, str] = {"code": "val", "paper": "test"}


@dataclass(frozen=True)
class BenchOptions:
    """The choices that a protocol leaves to the user."""

    variant: Variant = "code"
    seed: int = PUBLISHED_SEED
    triplets: int = TRIPLETS  # how many the drawn protocols draw
    originals: Path | None = None  # IP only: the folder of the original images

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise UsageError(f"unknown variant '{self.variant}'; known: {', '.join(get_args(Variant))}")
        if self.triplets < 1:
            raise UsageError(f"triplets must be at least 1, not {self.triplets}")


def load_characters(folder: Path, options: BenchOptions) -> list[Triplet]:
    """Load IP: an original and two of its variants; the variant with the higher weight is nearer."""
    need_folder(folder, "one folder for each character is expected there")
    homes = [folder / name for name in ("original", "originals")]
    originals = options.originals or next((home for home in homes if home.is_dir()), None)
    found = []
    for character in subfolders(folder):
        if character in homes or character == options.originals:
            continue
        reference = _original(character, originals)
        for near, far in IP_PAIRS:
            nearer, farther = (character / f"{weight}.png" for weight in (near, far))
            missing = [path for path in (nearer, farther) if not path.is_file()]
            if missing:
                raise UsageError(f"IP: {missing[0]} is missing; a character needs 1.0 0.8 0.6 0.4 0.35 0.3 and 0.2.png")
            found.append(Triplet(reference, nearer, farther, f"{near} vs {far}"))
    if not found:
        raise UsageError(f"IP: {folder} holds no folders of characters")
    return found


def _original(character: Path, originals: Path | None) -> Path:
    stem, home = ("original", character) if originals is None else (character.name, originals)
    need_folder(home, "the original images are expected there")
    for path in sorted(home.iterdir()):
        if path.stem == stem and path.suffix.lower() in IMAGE_SUFFIXES:
            return path
    raise UsageError(
        f"IP: there is no image {stem}.* in {home}; the originals belong in FOLDER/original/CHARACTER.jpg "
        "or FOLDER/CHARACTER/original.jpg",
        advice="name-originals",
    )


def load_cute(folder: Path, options: BenchOptions) -> list[Triplet]:
    """Load CUTE: A, B show one object in one lighting; C shows another object of the category in that lighting."""
    need_folder(folder, "CATEGORY/OBJECT/LIGHTING/IMAGE is expected there")
    chance, found = random.Random(options.seed), []
    for category in subfolders(folder):
        objects = subfolders(category)
        if not objects or not any(subfolders(thing) for thing in objects):
            raise UsageError(f"CUTE: {category} holds no OBJECT/LIGHTING folders")
        for _ in range(10):
            for thing in objects:
                triplet = _cute_triplet(thing, objects, chance)
                found += [] if triplet is None else [triplet]
    if not found:
        raise UsageError(f"CUTE: {folder} gives no triplets: categories need two objects or more")
    return found


def _cute_triplet(thing: Path, objects: Sequence[Path], chance: random.Random) -> Triplet | None:
    """Draw in the published order; None for an object that the published code skips."""
    lightings = subfolders(thing)
    if not lightings:
        return None
    lighting = chance.choice(lightings)
    pictures = images_in(lighting)
    if len(pictures) < 2:
        return None
    reference, nearer = chance.sample(pictures, 2)
    others = [other for other in objects if other != thing]
    if not others:
        return None
    across = chance.choice(others) / lighting.name
    if not across.is_dir() or not images_in(across):
        raise UsageError(f"CUTE: {across} holds no images, though {thing.name} has that lighting")
    return Triplet(reference, nearer, chance.choice(images_in(across)))


def load_tid2013(folder: Path, options: BenchOptions) -> list[Triplet]:
    """Load TID2013: two levels of one distortion; the lower level is nearer. Case in file names is ignored."""
    need_folder(folder, "TID2013's reference and distorted images are expected there")
    files = {path.name.lower(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    low, high = TID_LEVELS[options.variant]
    found = []
    for reference in range(1, 26):
        for distortion in range(1, 25):
            stem = f"i{reference:02}"
            names = (f"{stem}.bmp", f"{stem}_{distortion:02}_{low}.bmp", f"{stem}_{distortion:02}_{high}.bmp")
            missing = [name for name in names if name not in files]
            if missing:
                raise UsageError(
                    f"TID2013: {missing[0]} is missing below {folder}: 25 references x 24 distortions belong there"
                )
            original, nearer, farther = (files[name] for name in names)
            found.append(Triplet(original, nearer, farther, f"distortion {distortion:02}"))
    return found


def load_nights(folder: Path, options: BenchOptions) -> list[Triplet]:
    """Load NIGHTS: people's choices between two images; the published code uses the split val, the text says test."""
    return read_nights(folder / "data.csv", NIGHTS_SPLIT[options.variant])


def load_dreambench(folder: Path, options: BenchOptions) -> list[Triplet]:
    """Load Dreambench++: pairs that people rated clearly apart."""
    return dreambench(folder, options.seed)


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in ``folder``, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def images_in(folder: Path) -> list[Path]:
    """Return the images directly in ``folder``, sorted."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
