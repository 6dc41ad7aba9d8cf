"""`python -m tests.bench.scores.order DATA [--model mini] [--per-group 10]`: boards, two modes, and local scaling.

Every image of a set is scored, so that the order alone is measured. Images of one folder belong together.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval import BuildSettings, Engine, EngineSettings, Query, Results, build_index
from retrieval.settings import UNLIKE_WEIGHT

BOARD_SETS = ("style_wikiart", "style_styledrop")
SCALED = {
    "style_wikiart": "style",
    "style_styledrop": "style",
    "instance_dreambooth": "instance",
    "ip_dreambenchpp": "instance",
    "semantic_coco": "semantic",
    "semantic_imagenet": "semantic",
}
IMAGES = 3  # of a board
TOP = 5
SEED = 7
Relevant = Callable[[str], bool]


def open_index(folder: Path, scratch: Path, model: str, modes: Sequence[str]) -> Engine:
    """Index one set."""
    index = scratch / f"{folder.name}.diffsim"
    build_index(folder, index, model=model, modes=modes, run=BuildSettings(device="cpu"))
    return Engine.open(index, EngineSettings(device="cpu"))


def average_precision(found: Results, relevant: Relevant) -> float:
    """Return the average precision of a ranking of all images, in percent."""
    hits = np.array([relevant(result.path) for result in found])
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(100 * (precision * hits).sum() / max(1, hits.sum()))


def same_folder(path: str) -> Relevant:
    """Say of an image whether it lies in the folder of ``path``."""
    return lambda other: Path(other).parent == Path(path).parent


def search(engine: Engine, query: str | Query, mode: str, **choices: object) -> Results:
    """Score every image but the query's own."""
    wanted = {"exhaustive": True, "k": len(engine), "exclude_copies": True, **choices}
    return engine.search(query, mode, **wanted)  # type: ignore[arg-type]


def boards(engine: Engine, per_group: int) -> Iterator[tuple[str, float]]:
    """Yield the mean average precision of boards of three images, asked in each way."""
    random, paths = np.random.default_rng(SEED), engine.paths()
    drawn = []
    for folder in sorted({Path(path).parent for path in paths}):
        every = list(itertools.combinations([path for path in paths if Path(path).parent == folder], IMAGES))
        drawn += [every[n] for n in random.choice(len(every), min(per_group, len(every)), replace=False)]
    alone = {path: search(engine, path, "style") for path in {path for board in drawn for path in board}}
    each = [[_without(alone[path], board) for path in board] for board in drawn]
    yield "boards", len(drawn)
    yield "the three asked alone, mean", float(np.mean(each))
    yield "the best of the three, chosen for each board", float(np.mean(np.max(each, axis=1)))
    for combine, scaling in itertools.product(("mean", "max", "union"), ("none", "csls")):
        found = [
            average_precision(
                search(engine, Query(list(board), combine=combine), "style", scaling=scaling),  # type: ignore[arg-type]
                same_folder(board[0]),
            )
            for board in drawn
        ]
        yield f"--combine {combine} --scaling {scaling}", float(np.mean(found))


def _without(found: Results, board: Sequence[str]) -> float:
    hits = np.array([same_folder(board[0])(result.path) for result in found if result.path not in board])
    return float(100 * ((np.cumsum(hits) / np.arange(1, len(hits) + 1)) * hits).sum() / hits.sum())


def two_modes(engine: Engine) -> Iterator[tuple[str, float, float, float]]:
    """Yield precision among 5 and 15, and average precision, of images of the same style and another subject."""
    ways: dict[str, dict[str, object]] = {
        "--mode style": {},
        "--mode style --not semantic": {"mode_weights": {"semantic": UNLIKE_WEIGHT}},
    }
    for (name, choices), left_out in itertools.product(ways.items(), (False, True)):
        figures = []
        for path in engine.paths():
            found = search(engine, path, "style", exclude_copies=left_out, **choices)

            def relevant(other: str, path: str = path) -> bool:
                return same_folder(path)(other) and Path(other).stem != Path(path).stem

            hits = [relevant(result.path) for result in found]
            figures.append(
                (100 * np.mean(hits[:TOP]), 100 * np.mean(hits[: 3 * TOP]), average_precision(found, relevant))
            )
        first, second, third = np.mean(figures, axis=0).tolist()
        yield name + (" --exclude-copies" if left_out else ""), first, second, third


def scaled(engine: Engine, mode: str) -> tuple[float, float, float, float]:
    """Return the mean average precision without and with scaling, and the 95 % interval of the difference."""
    means: list[list[float]] = []
    for scaling in ("none", "csls"):
        found = {path: search(engine, path, mode, scaling=scaling) for path in engine.paths()}
        means.append([average_precision(each, same_folder(path)) for path, each in found.items()])
    without, with_it = np.array(means)
    low, high = _interval(with_it - without)
    return float(without.mean()), float(with_it.mean()), low, high


def _interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    drawn = np.random.default_rng(SEED).integers(0, len(differences), (2000, len(differences)))
    low, high = np.percentile(differences[drawn].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--per-group", type=int, default=10, help="boards of each folder")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        engines = {
            name: open_index(asked.data / name, Path(temporary), asked.model, [mode, *_beside(name)])
            for name, mode in SCALED.items()
        }
        print("| set | mode | mAP | with csls | difference |\n|---|---|---|---|---|")
        for name, mode in SCALED.items():
            none, csls, low, high = scaled(engines[name], mode)
            print(f"| {name} | {mode} | {none:.1f} | {csls:.1f} | {csls - none:+.1f} ({low:+.1f} to {high:+.1f}) |")
        print("\n| style_styledrop | P@5 | P@15 | mAP |\n|---|---|---|---|")
        for name, *figures in two_modes(engines["style_styledrop"]):
            print(f"| `{name}` | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
        for name in BOARD_SETS:
            print(f"\n| {name}, boards of 3 | mAP |\n|---|---|")
            for way, figure in boards(engines[name], asked.per_group):
                print(f"| {way} | {figure:.1f} |", flush=True)


def _beside(name: str) -> tuple[str, ...]:
    return ("semantic",) if name == "style_styledrop" else ()


if __name__ == "__main__":
    main()
