"""`python -m tests.bench.duplicates DATA [--kinds 2]`: recall by kind of copy, and precision, of `find_duplicates`.

Every picture of DATA is an original; its distorted versions in `lowlevel_live` are left out. Each original gets some
kinds of copies in turn. Originals with an even number choose thresholds, those with an odd one are reported apart.
"""

import argparse
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from retrieval import BuildSettings, build_index
from retrieval.grouping.duplicates import find_duplicates
from retrieval.grouping.results import Duplicates
from retrieval.images.discovery import IMAGE_SUFFIXES
from tests.bench.duplicates.copies import COPIES, write_copy

ORIGINAL = "original"
KINDS = tuple(COPIES)


def originals(data: Path) -> list[Path]:
    """Return the pictures of ``data``; of distorted ones only the reference."""
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return [path for path in files if "lowlevel_live" not in path.parts or path.stem == "ref"]


def write(files: Sequence[Path], folder: Path, kinds: int) -> dict[str, tuple[int, str]]:
    """Copy the originals to ``folder`` and write their copies; return each path's original and kind."""
    known: dict[str, tuple[int, str]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files):
        path = folder / f"{number:05d}-original{file.suffix}"
        shutil.copy(file, path)
        known[str(path)] = (number, ORIGINAL)
        for each in range(kinds):
            kind = (number * kinds + each) % len(KINDS)
            place = folder / f"{number:05d}-{kind}"
            known[str(write_copy(KINDS[kind], file, place, 10 * number + kind))] = (number, KINDS[kind])
    return known


def report(found: Duplicates, known: dict[str, tuple[int, str]], half: int | None) -> list[tuple[str, str]]:
    """Return the figures of the originals whose number is ``half`` modulo 2; None: of all."""
    chosen = {path: value for path, value in known.items() if half is None or value[0] % 2 == half}
    group_of = {
        member.path: number
        for number, group in enumerate(found.groups)
        if group.level == "same"
        for member in group.members
    }
    whole = {number: path for path, (number, kind) in known.items() if kind == ORIGINAL}
    made, hit = Counter[str](), Counter[str]()
    for path, (number, kind) in chosen.items():
        if kind != ORIGINAL:
            made[kind] += 1
            hit[kind] += path in group_of and group_of[path] == group_of.get(whole[number])
    pairs = [
        known[group.kept.path][0] == known[member.path][0]
        for group in found.groups
        if group.level == "same"
        for member in group.members[1:]
        if member.path in chosen
    ]
    rows = [(kind, f"{hit[kind] / made[kind]:.3f} of {made[kind]}") for kind in KINDS if made[kind]]
    return [*rows, ("precision of pairs", f"{np.mean(pairs):.4f} of {len(pairs)}")]


def wrong(found: Duplicates, known: dict[str, tuple[int, str]], files: Sequence[Path]) -> list[str]:
    """Return the pairs that are called the same and are not, with their original files."""
    return [
        f"{files[known[group.kept.path][0]]} {Path(group.kept.path).name} | "
        f"{files[known[m.path][0]]} {Path(m.path).name} {m.share}"
        for group in found.groups
        if group.level == "same"
        for m in group.members[1:]
        if known[m.path][0] != known[group.kept.path][0]
    ]


def main() -> None:
    """Write, index, search and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--kinds", type=int, default=2, help="copies of each original")
    parser.add_argument("--every", type=int, default=1, help="take every n-th original")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--keep", type=Path, help="folder of pictures and index, used again if there")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.keep or Path(scratch)
        files = originals(asked.data)[:: asked.every]
        known = write(files, folder / "pictures", asked.kinds)
        build_index(folder / "pictures", folder / "index.diffsim", model=asked.model, run=BuildSettings(device="cpu"))
        spent = time.process_time()
        found = find_duplicates(folder / "index.diffsim")
        spent = time.process_time() - spent
    print(f"| {len(known)} images, {len(files)} originals | {spent:.0f} s of CPU | {dict(found.timing_s)} |")
    for half, name in ((0, "chosen on"), (1, "held out"), (None, "all")):
        for what, figure in report(found, known, half):
            print(f"| {name} | {what} | {figure} |")
    alike = [group for group in found.groups if group.level == "similar"]
    print(f"| groups of similar images | {len(alike)} | of {sum(len(g.members) for g in alike)} images |")
    for line in wrong(found, known, files):
        print(f"wrong: {line}")


if __name__ == "__main__":
    main()
