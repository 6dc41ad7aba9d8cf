"""`python -m tests.bench.regions DATA [--model mini] [--mode instance] [--image-size N] [--step N | --quick]`.

Small subjects: pictures of DATA/instance_dreambooth are pasted at 40 % of the side on one of six scenes, and subjects
share scenes. All pictures of DATA are candidates beside these. Some of the pasted pictures ask: whole, with their box,
and with the subject that the model finds. Photographs as they are ask the same on their own set, where a region should
lose nothing.

A first result is right if it shows the subject. Three columns pass over some photographs of the subject that asks:
the pasted one; all of them; all, and every other picture that was not pasted. Of an explained pair, the hottest cells
of the candidate should lie on its subject: more than half of the 5 hottest, each by a quarter of its area at least.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image

from retrieval import (
    Box,
    BuildSettings,
    Engine,
    EngineSettings,
    ImageExplanation,
    Query,
    Results,
    Subject,
    build_index,
)
from retrieval.types import Fractions

SUBJECTS, SCENES, SIDE, SUBJECT_PX = "instance_dreambooth", "semantic_coco", 448, 179
SEEDS = (7, 11)  # of the scenes: constants were chosen on the first
HOTTEST = 5  # cells of a candidate
TIMED, ROUNDS = 6, 5  # pictures whose searches are timed, and how often
CPU = EngineSettings(device="cpu")
Boxes = Mapping[str, Fractions]
Asked = list[tuple[str, Results]]


def paste(data: Path, folder: Path, seed: int = SEEDS[0]) -> Boxes:
    """Write the pasted pictures, a folder a subject; return each one's box."""
    random = np.random.default_rng(seed)
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


def _first(asked: str, found: Results, boxes: Boxes) -> tuple[bool, bool, bool]:
    """Say for each of the three columns whether the first result shows the subject that asked."""
    subject, own = Path(asked).parent.name, Path(asked).stem
    paths = [Path(result.path) for result in found]
    is_photograph = {path: path.parent.parent.name == SUBJECTS and path.parent.name == subject for path in paths}
    kept = (
        [path for path in paths if not (is_photograph[path] and path.stem == own)],
        [path for path in paths if not is_photograph[path]],
        [path for path in paths if str(path) in boxes],
    )
    first, second, third = (bool(each) and each[0].parent.name == subject for each in kept)
    return first, second, third


def _row(what: str, asked: Asked, boxes: Boxes) -> str:
    shares = 100 * np.mean([_first(path, found, boxes) for path, found in asked], axis=0)
    return f"| {what} | " + " | ".join(f"{share:.1f} %" for share in shares) + " |"


def _ask(engine: Engine, mode: str, questions: Mapping[str, str | Query], **choices: Any) -> Asked:
    return [
        (path, engine.search(question, mode, exclude_copies=True, **choices)) for path, question in questions.items()
    ]


def measure(engine: Engine, boxes: Boxes, mode: str, step: int) -> list[str]:
    """Ask with some pasted pictures among all candidates; return rows of two tables."""
    some = list(boxes)[::step]
    regions = {path: Query([path], regions=[Box(*boxes[path])]) for path in some}
    subjects = {path: Query([path], regions=[Subject()]) for path in some}
    wholes: dict[str, str | Query] = {path: path for path in some}
    _ask(engine, mode, dict(list(wholes.items())[:2]))
    _ask(engine, mode, dict(list(regions.items())[:2]))
    every = {"exhaustive": True, "k": len(engine)}
    ways: dict[str, tuple[Mapping[str, str | Query], dict[str, Any]]] = {
        "whole picture, 200 candidates": (wholes, {"k": 200}),
        "box, 200 candidates": (regions, {"k": 200, "candidates": 200}),
        "box, default candidates": (regions, {"k": 400}),
        "box, every image scored": (regions, every),
        "box, the best 20 looked at closer": (regions, {"k": 200, "candidates": 200, "look_closer": 20}),
        "subject, 200 candidates": (subjects, {"k": 200, "candidates": 200}),
        "subject, the best 20 looked at closer": (subjects, {"k": 200, "candidates": 200, "look_closer": 20}),
    }
    asked = {}
    for what, (questions, choices) in ways.items():
        print(f"asking {len(questions)} times: {what}", file=sys.stderr, flush=True)
        asked[what] = _ask(engine, mode, questions, **choices)
    rows = [_row(what, found, boxes) for what, found in asked.items()]
    near = [_recall(found, path, boxes) for path, found in asked["box, 200 candidates"]]
    chosen = [found.query["region"]["box"] for _, found in asked["subject, 200 candidates"] if "region" in found.query]
    right = [overlap(box, boxes[path]) >= 0.3 for box, path in zip(chosen, some, strict=False)]
    pairs = _pairs(asked["box, every image scored"], boxes)
    located = [overlap(result.found_box, boxes[result.path]) >= 0.3 for _, result in pairs]
    hot = [_is_hot_on(boxes[result.path], engine.explain(regions[path], result, mode)) for path, result in pairs]
    return [
        *rows,
        f"| pasted pictures of the subject among 200 candidates | {100 * np.mean(near):.1f} % |",
        f"| subjects that overlap the true box by 0.3 | {100 * np.mean(right):.1f} % |",
        f"| found boxes that overlap by 0.3, of {len(located)} true pairs | {100 * np.mean(located):.1f} % |",
        f"| hottest cells on the subject, of {len(hot)} explained true pairs | {100 * np.mean(hot):.1f} % |",
        *_times(engine, mode, wholes, regions),
    ]


def _recall(found: Results, asked: str, boxes: Boxes) -> float:
    mine = {path for path in boxes if Path(path).parent == Path(asked).parent} - {asked}
    return len(mine & {result.path for result in found}) / len(mine)


def _pairs(asked: Asked, boxes: Boxes) -> list[tuple[str, Any]]:
    """Return the pasted pictures that show the subject that asked, with the one that did."""
    return [
        (path, result)
        for path, found in asked
        for result in found
        if result.path in boxes and Path(result.path).parent == Path(path).parent and result.found_box is not None
    ]


def _is_hot_on(box: Fractions, found: ImageExplanation) -> bool:
    """Say whether more than half of the hottest cells lie on a box, each by a quarter of its area at least."""
    shares = []
    for start, length, count in zip(box[:2], box[2:], reversed(found.candidate_map.shape), strict=True):
        edges = np.linspace(0, 1, count + 1)
        inside = np.minimum(edges[1:], start + length) - np.maximum(edges[:-1], start)
        shares.append(np.clip(inside, 0, None) * count)
    on_box = np.outer(shares[1], shares[0])  # share of each cell [rows, columns]
    hottest = np.argsort(-found.candidate_map, axis=None)[:HOTTEST]
    return bool((on_box.flatten()[hottest] >= 0.25).mean() > 0.5)


def _times(engine: Engine, mode: str, wholes: Mapping[str, Any], regions: Mapping[str, Any]) -> list[str]:
    """Time warm searches in turns, so that all meet the same other load: the least of several, the mean of pictures."""
    some = list(wholes)[:TIMED]
    least: dict[tuple[str, str], float] = {}
    for _ in range(ROUNDS):
        for path in some:
            subject = Query([path], regions=[Subject()])
            asked: tuple[tuple[str, Any, int], ...] = (
                ("whole picture", wholes[path], 0),
                ("box", regions[path], 0),
                ("`--subject`", subject, 0),
                ("box, `--look-closer 20`", regions[path], 20),
            )
            for name, question, closer in asked:
                before = time.perf_counter()
                engine.search(question, mode, candidates=200, look_closer=closer)
                spent = 1e3 * (time.perf_counter() - before)
                least[name, path] = min(spent, least.get((name, path), spent))
    means = {name: mean(ms for (known, _), ms in least.items() if known == name) for name, _ in least}
    base = means["whole picture"]
    return [f"| {name}, 200 candidates: by the clock | {ms:.0f} ms, {ms / base:.2f} x |" for name, ms in means.items()]


def unpasted(data: Path, index: Path, mode: str, step: int) -> list[str]:
    """Ask with photographs as they are, among their own set."""
    engine = Engine.open(index, CPU)
    some = sorted(str(path) for path in (data / SUBJECTS).glob("*/*.jpg"))[::step]
    rows = []
    for what, region in (("whole", None), ("box of 80 % of the side", Box(0.1, 0.1, 0.8, 0.8)), ("subject", Subject())):
        questions = {path: Query([path], regions=[region]) for path in some}
        found = _ask(engine, mode, questions, exhaustive=True, k=len(engine))
        precision = [_precision([Path(r.path).parent == Path(path).parent for r in each]) for path, each in found]
        first = [Path(each[0].path).parent == Path(path).parent for path, each in found]
        rows.append(f"| photographs, {what} | {100 * np.mean(first):.1f} % | {100 * np.mean(precision):.1f} % |")
    return rows


def _precision(right: Sequence[bool]) -> float:
    hits = np.flatnonzero(right)
    return float(np.mean((np.arange(len(hits)) + 1) / (hits + 1))) if len(hits) else 0.0


def main() -> None:
    """Paste, index and measure; print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--mode", default="instance")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--step", type=int, default=4, help="every so many pictures ask")
    parser.add_argument("--quick", action="store_true", help="one set of scenes, a quarter of the pictures")
    asked = parser.parse_args()
    seeds, step = (SEEDS[:1], 4 * asked.step) if asked.quick else (SEEDS, asked.step)
    run, made = (
        BuildSettings(device="cpu"),
        {"model": asked.model, "modes": [asked.mode], "image_size": asked.image_size},
    )
    for seed in seeds:
        with tempfile.TemporaryDirectory() as scratch:
            boxes = paste(asked.data, Path(scratch) / "pasted", seed)
            index = Path(scratch) / "all.diffsim"
            build_index([asked.data, Path(scratch) / "pasted"], index, run=run, **made)
            print(f"scenes {seed}", flush=True)
            print("\n".join(measure(Engine.open(index, CPU), boxes, asked.mode, step)), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        index = Path(scratch) / "photographs.diffsim"
        build_index(asked.data / SUBJECTS, index, run=run, **made)
        print("\n".join(unpasted(asked.data, index, asked.mode, step)))


if __name__ == "__main__":
    main()
