"""`python -m tests.bench.regions DATA [--model mini] [--mode instance]`: small subjects before shared scenes.

Each picture of DATA/instance_dreambooth is pasted at 40 % of the side on one of six scenes, and subjects share scenes.
All pictures of DATA are candidates beside these. Each pasted picture asks once: whole, and with its box.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import torch
from PIL import Image

from retrieval import Box, BuildSettings, Engine, EngineSettings, Query, Results, build_index
from retrieval.types import Fractions

SUBJECTS, SCENES, SIDE, SUBJECT_PX, SEED = "instance_dreambooth", "semantic_coco", 448, 179, 7
FIRST_STAGES = (100, 200, 400, 600)
TOP = 4
CPU = EngineSettings(device="cpu")
Boxes = Mapping[str, Fractions]


def paste(data: Path, folder: Path) -> Boxes:
    """Write the pasted pictures, a folder a subject; return each one's box."""
    random = np.random.default_rng(SEED)
    files = sorted((data / SCENES).rglob("*.jpg"))
    scenes = [_read(files[n], SIDE) for n in random.choice(len(files), 6, replace=False)]
    boxes: dict[str, Fractions] = {}
    for subject in sorted(path for path in (data / SUBJECTS).iterdir() if path.is_dir()):
        order = random.permutation(len(scenes))
        (folder / subject.name).mkdir(parents=True)
        for number, file in enumerate(sorted(subject.glob("*.jpg"))):
            picture = scenes[order[number % len(scenes)]].copy()
            x, y = (int(at) for at in random.integers(0, SIDE - SUBJECT_PX, 2))
            picture.paste(_read(file, SUBJECT_PX), (x, y))
            path = folder / subject.name / f"{file.stem}.png"
            picture.save(path)
            boxes[str(path)] = (x / SIDE, y / SIDE, SUBJECT_PX / SIDE, SUBJECT_PX / SIDE)
    return boxes


def _read(file: Path, side: int) -> Image.Image:
    with Image.open(file) as opened:
        return opened.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


def overlap(one: Fractions, other: Fractions) -> float:
    """Return the intersection over the union of two boxes."""
    sides = [max(0.0, min(one[n] + one[n + 2], other[n] + other[n + 2]) - max(one[n], other[n])) for n in range(2)]
    both = sides[0] * sides[1]
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def share_first(asked: Sequence[str], found: Sequence[Results], without: Literal["own", "all"] = "own") -> str:
    """Return the share of queries whose first result shows the same subject, pasted or as it was photographed.

    The photograph that was pasted is passed over, or with "all" every photograph of the subject: then a small subject
    is sought among whole pictures of other ones.
    """
    right = [_is_right(Path(path), each, without) for path, each in zip(asked, found, strict=True)]
    return f"{100 * np.mean(right):.1f} %"


def _is_right(asked: Path, found: Results, without: Literal["own", "all"]) -> bool:
    subject = asked.parent.name
    for path in (Path(result.path) for result in found):
        is_photograph = path.parent.parent.name == SUBJECTS and path.parent.name == subject
        if not is_photograph or (without == "own" and path.stem != asked.stem):
            return path.parent.name == subject
    return False


def measure(index: Path, boxes: Boxes, mode: str) -> list[tuple[str, str]]:
    """Ask with every picture among all candidates."""
    engine = Engine.open(index, CPU)
    wholes = list(boxes)
    regions = [Query([path], regions=[Box(*box)]) for path, box in boxes.items()]

    def ask(queries: Sequence[str | Query], **choices: object) -> list[Results]:
        return [engine.search(each, mode, exclude_copies=True, **choices) for each in queries]  # type: ignore[arg-type]

    ask(wholes[:2])
    ask(regions[:2])
    whole, region, exact = ask(wholes), ask(regions), ask(regions, exhaustive=True)
    coarse = [[result.path for result in found] for found in ask(regions, rerank=False, k=max(FIRST_STAGES))]
    rows = [
        ("images in the index", f"{len(engine)}"),
        ("whole picture, R@1", share_first(wholes, whole)),
        ("box, R@1, default first stage", share_first(wholes, region)),
        ("box, R@1, 200 candidates", share_first(wholes, ask(regions, candidates=200))),
        ("box, R@1, every image scored", share_first(wholes, exact)),
        ("whole picture, R@1 without photographs of the subject", share_first(wholes, whole, "all")),
        ("box, R@1 without photographs of the subject", share_first(wholes, region, "all")),
        ("whole picture, median search", f"{median(each.timing_ms['total'] for each in whole):.0f} ms"),
        ("box, median search", f"{median(each.timing_ms['total'] for each in region):.0f} ms"),
        ("of it, finding ten boxes", f"{median(each.timing_ms['locate'] for each in region):.0f} ms"),
    ]
    for count in FIRST_STAGES:
        near = [
            len({r.path for r in found[:TOP]} & set(names[:count])) / TOP
            for found, names in zip(exact, coarse, strict=True)
        ]
        rows.append((f"box, exact top {TOP} among {count} candidates", f"{100 * np.mean(near):.1f} %"))
    whole_box = Query(wholes[:1], regions=[Box(0, 0, SIDE, SIDE)])
    same = [(r.path, r.score) for r in ask([whole_box])[0]] == [(r.path, r.score) for r in whole[0]]
    return [*rows, ("a box of the whole picture gives the scores of no box", "yes" if same else "no")]


def located(index: Path, boxes: Boxes, mode: str) -> list[tuple[str, str]]:
    """Compare found boxes with the true ones, for every pair of pictures of one subject."""
    engine = Engine.open(index, CPU)
    overlaps, first = [], []
    for path, box in list(boxes.items())[::2]:
        query = Query([path], regions=[Box(*box)])
        found = engine.search(query, mode, exhaustive=True, exclude_copies=True, k=len(engine))
        first.append(Path(found[0].path).parent.name == Path(path).parent.name)
        same = [result for result in found if Path(result.path).parent.name == Path(path).parent.name]
        overlaps += [overlap(each.found_box, boxes[each.path]) for each in same if each.found_box is not None]
    return [
        ("box, R@1 among pasted pictures alone, every second one asks", f"{100 * np.mean(first):.1f} %"),
        (
            f"found boxes with an overlap of 0.3, of {len(overlaps)}",
            f"{100 * np.mean(np.array(overlaps) >= 0.3):.1f} %",
        ),
        ("found boxes, mean overlap", f"{np.mean(overlaps):.2f}"),
    ]


def main() -> None:
    """Paste, index and measure; print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--mode", default="instance")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        pasted, run = Path(scratch) / "pasted", BuildSettings(device="cpu")
        boxes = paste(asked.data, pasted)
        index, small = Path(scratch) / "all.diffsim", Path(scratch) / "pasted.diffsim"
        build_index([asked.data, pasted], index, model=asked.model, modes=[asked.mode], run=run)
        build_index(pasted, small, model=asked.model, modes=[asked.mode], run=run)
        for what, figure in [*measure(index, boxes, asked.mode), *located(small, boxes, asked.mode)]:
            print(f"| {what} | {figure} |")


if __name__ == "__main__":
    main()
