"""Loaders of a user's own labelled data."""

from pathlib import Path

from retrieval.errors import UsageError
from retrieval.evaluation.benchmarks.paper import BenchOptions
from retrieval.evaluation.triplets import (
    ImageGroups,
    Triplet,
    draw_triplets,
    read_csv,
    read_groups,
    read_triplets,
)

UNSELECTED = "random (unbiased)"  # the part with randomly drawn triplets


def load_votes(folder: Path, options: BenchOptions) -> list[Triplet]:
    """Load votes on the NIGHTS page: ID/ref.jpg, d0.jpg, d1.jpg and votes.csv; random triplets are a part."""
    rows = read_csv(folder / "votes.csv", ("id", "page_section", "human"))
    found = []
    for line, row in rows:
        if row["human"] not in {"0", "1"}:
            raise UsageError(f"{folder / 'votes.csv'}, line {line}: human is '{row['human']}', not 0 or 1")
        home = folder / row["id"]
        if not home.is_dir():
            continue  # a subset will do: its size is reported
        near = int(row["human"])
        part = UNSELECTED if "random" in row["page_section"].split("|") else "selected by the authors"
        found.append(Triplet(home / "ref.jpg", home / f"d{near}.jpg", home / f"d{1 - near}.jpg", part))
    if not found:
        raise UsageError(f"{folder}: votes.csv names no existing folder")
    return found


def load_levels(folder: Path, options: BenchOptions) -> list[Triplet]:
    """Load ordered distortions: levels.csv (file, reference, distortion, level); the milder level is nearer."""
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
        raise UsageError(f"{folder}: levels.csv names no series with two or more existing levels")
    return found


def load_file(file: Path, options: BenchOptions) -> list[Triplet]:
    """Read a CSV of triplets."""
    return read_triplets(file)


def load_groups(folder: Path, options: BenchOptions) -> list[Triplet]:
    """Draw triplets by the style protocol: A and B from one folder, C from another (Sref, InstantStyle, own groups)."""
    return draw_triplets(read_groups(folder), options.triplets, options.seed)


def load_videos(folder: Path) -> ImageGroups:
    """Return frames by video (TikTok): VIDEO/FRAME.png in the order of names, two or more for each video."""
    videos = {name: paths for name, paths in read_groups(folder, "video").items() if len(paths) > 1}
    if not videos:
        raise UsageError(f"{folder} holds no folder of two or more frames")
    return videos
