"""The benchmarks of the paper, as one table, and the layouts of their folders.

Walks are sorted by the bytes of the names, whatever the file system says, and random draws come from one seeded
generator, so the same data give the same triplets everywhere. Where the paper's text and its code differ,
``variant="code"`` is what the published numbers came from and ``"paper"`` what the text says.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from retrieval.discovery import IMAGE_SUFFIXES
from retrieval.errors import UsageError
from retrieval.evaluation.dreambench import dreambench
from retrieval.evaluation.nights import read_nights
from retrieval.evaluation.triplets import (
    TRIPLETS,
    Groups,
    Triplet,
    draw_triplets,
    need_folder,
    read_csv,
    read_groups,
    read_triplets,
)
from retrieval.settings import PUBLISHED_SEED

Variant = Literal["code", "paper"]

IP_PAIRS = (("1.0", "0.6"), ("0.8", "0.4"), ("0.6", "0.3"), ("0.4", "0.35"), ("0.3", "0.2"))
TID_LEVELS: Mapping[Variant, tuple[int, int]] = {"code": (2, 3), "paper": (1, 5)}
UNSELECTED = "random (unbiased)"  # the part of the votes that nobody selected
NIGHTS_SPLIT: Mapping[Variant, str] = {"code": "val", "paper": "test"}


@dataclass(frozen=True)
class BenchOptions:
    """What a person may choose of a protocol."""

    variant: Variant = "code"
    seed: int = PUBLISHED_SEED
    triplets: int = TRIPLETS  # of the drawn protocols
    originals: Path | None = None  # of IP: the folder of the original images

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise UsageError(f"unknown variant '{self.variant}'; known: {', '.join(get_args(Variant))}")
        if self.triplets < 1:
            raise UsageError(f"triplets must be at least 1, not {self.triplets}")


@dataclass(frozen=True)
class Bench:
    """A benchmark: what its folder looks like, and how it becomes triplets."""

    name: str
    title: str
    layout: str
    load: Callable[[Path, BenchOptions], list[Triplet]]
    published: int = 0  # how many triplets the paper has
    column: str = ""  # in the table of published numbers
    layer: str = "U_0"  # the published settings of DiffSim-S
    denoising_step: int = 900
    settings_differ: str = ""


def load_styles(folder: Path, options: BenchOptions) -> list[Triplet]:
    """Sref and InstantStyle: A, B from one style, C from another."""
    return draw_triplets(read_groups(folder), options.triplets, options.seed)


def load_characters(folder: Path, options: BenchOptions) -> list[Triplet]:
    """IP: the original, and two variants of which the one with the higher weight is nearer."""
    need_folder(folder, "one folder a character is expected there")
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
        f"IP: no image {stem}.* in {home}; put the originals in FOLDER/original/CHARACTER.jpg, "
        "in FOLDER/CHARACTER/original.jpg, or name their folder with --originals"
    )


def load_cute(folder: Path, options: BenchOptions) -> list[Triplet]:
    """CUTE: A, B are one object in one lighting folder; C is another object of its category in the same lighting."""
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
    """Draw in the published order; None where the published code passes over an object."""
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
    """TID2013: two levels of one distortion of one reference; the lower level is nearer. Letter case is ignored."""
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
                    f"TID2013: {missing[0]} is nowhere below {folder}: 25 references x 24 distortions belong there"
                )
            original, nearer, farther = (files[name] for name in names)
            found.append(Triplet(original, nearer, farther, f"distortion {distortion:02}"))
    return found


def load_nights(folder: Path, options: BenchOptions) -> list[Triplet]:
    """NIGHTS: a person's choice of two; the published code measures the split ``val``, its text says ``test``."""
    return read_nights(folder / "data.csv", NIGHTS_SPLIT[options.variant])


def load_dreambench(folder: Path, options: BenchOptions) -> list[Triplet]:
    """Dreambench++: pairs that two groups of people rated clearly apart."""
    return dreambench(folder, options.seed)


def load_votes(folder: Path, options: BenchOptions) -> list[Triplet]:
    """Votes on the NIGHTS page: ID/ref.jpg, d0.jpg, d1.jpg and votes.csv; the unselected part is reported apart."""
    rows = read_csv(folder / "votes.csv", ("id", "page_section", "human"))
    found = []
    for line, row in rows:
        if row["human"] not in {"0", "1"}:
            raise UsageError(f"{folder / 'votes.csv'}, line {line}: human is '{row['human']}', not 0 or 1")
        home = folder / row["id"]
        if not home.is_dir():
            continue  # a part of the set is still a set: its size is reported
        near = int(row["human"])
        part = UNSELECTED if "random" in row["page_section"].split("|") else "selected by the authors"
        found.append(Triplet(home / "ref.jpg", home / f"d{near}.jpg", home / f"d{1 - near}.jpg", part))
    if not found:
        raise UsageError(f"{folder}: votes.csv names no folder that is there")
    return found


def load_levels(folder: Path, options: BenchOptions) -> list[Triplet]:
    """Ordered distortions: levels.csv (file, reference, distortion, level); every milder level is the nearer one."""
    rows = read_csv(folder / "levels.csv", ("file", "reference", "distortion", "level"))
    series: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    for line, row in rows:
        if not row["level"].isdecimal():
            raise UsageError(f"{folder / 'levels.csv'}, line {line}: level is '{row['level']}', not a whole number")
        if (folder / row["file"]).is_file() and (folder / row["reference"]).is_file():
            member = (int(row["level"]), folder / row["file"])
            series.setdefault((row["reference"], row["distortion"]), []).append(member)
    found = [
        Triplet(folder / reference, near, far, distortion)
        for (reference, distortion), members in sorted(series.items())
        for low, near in sorted(members)
        for high, far in sorted(members)
        if low < high
    ]
    if not found:
        raise UsageError(f"{folder}: levels.csv names no series of two or more levels that are there")
    return found


def load_file(file: Path, options: BenchOptions) -> list[Triplet]:
    """Read a person's own triplets."""
    return read_triplets(file)


def load_groups(folder: Path, options: BenchOptions) -> list[Triplet]:
    """Draw from a person's own groups by the style protocol."""
    return draw_triplets(read_groups(folder), options.triplets, options.seed)


def load_videos(folder: Path) -> Groups:
    """TikTok: frames by video, VIDEO/FRAME.png in the order of their names; two frames or more each."""
    videos = {name: paths for name, paths in read_groups(folder, "video").items() if len(paths) > 1}
    if not videos:
        raise UsageError(f"{folder} holds no folder of two or more frames")
    return videos


_ENTRIES = (
    Bench("sref", "Sref: 508 styles x 4", "STYLE/N.png", load_styles, 2000, "Sref"),
    Bench("instantstyle", "InstantStyle: 30 styles x 5", "STYLE/N.png", load_styles, 2000, "InstantStyle"),
    Bench("ip", "IP: 299 characters x 5 pairs", "CHARACTER/1.0.png ... 0.2.png, original/CHARACTER.jpg",
          load_characters, 1495, "IP", denoising_step=750),
    Bench("cute", "CUTE: 180 objects x 10", "CATEGORY/OBJECT/LIGHTING/N.jpg", load_cute, 1800, "CUTE",
          denoising_step=600),
    Bench("tid2013", "TID2013: 25 references x 24 distortions", "I01.BMP, i01_01_1.bmp ...", load_tid2013, 600,
          "TID2013", settings_differ="levels 2 and 3 (code), 1 and 5 (paper)"),
    Bench("nights", "NIGHTS: human votes", "data.csv, ref/, distort/", load_nights, 2120, "NIGHTS",
          denoising_step=500, settings_differ="split val (code), test (paper)"),
    Bench("dreambench++", "Dreambench++: human ratings", "PIPELINE/src_image/REF/0_0.jpg, tgt_image, data_human_rating",
          load_dreambench, 937, "Dreambench++", denoising_step=750),
    Bench("votes", "votes on the NIGHTS page", "votes.csv, ID/ref.jpg d0.jpg d1.jpg", load_votes),
    Bench("levels", "ordered distortions", "levels.csv, SCENE/DISTORTION_Lk.jpg", load_levels),
    Bench("triplets", "a CSV of your own", "reference,nearer,farther[,part]", load_file),
    Bench("groups", "folders of your own: same folder, same group", "GROUP/IMAGE", load_groups),
)  # fmt: skip

BENCHES: Mapping[str, Bench] = MappingProxyType({bench.name: bench for bench in _ENTRIES})
TIKTOK = "tiktok"  # no triplets: the variance of a score over the frames of a video


def describe_bench(name: str) -> Bench:
    """Look a benchmark up; an unknown name is a UsageError that lists the known ones."""
    if name not in BENCHES:
        raise UsageError(f"unknown benchmark '{name}'; known: {', '.join(BENCHES)}, {TIKTOK}, pairs, all")
    return BENCHES[name]


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in ``folder``, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def images_in(folder: Path) -> list[Path]:
    """Return the images right in ``folder``, sorted."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
