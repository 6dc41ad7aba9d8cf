"""`python -m tests.bench.scores.order DATA [--model mini] [--per-group 20]`: boards, two modes, and local scaling.

Every image of a set is scored against every other one, so that the order alone is measured. Images of one folder belong
together.
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval import BuildSettings, Engine, EngineSettings, Query, build_index
from retrieval.encoding.loaded_models import load_models
from retrieval.encoding.recipe import stored_recipe
from retrieval.encoding.stored_tensors import qkv_decoder
from retrieval.evaluation.pairs import average_precision
from retrieval.models.registry import describe_extractor
from retrieval.scoring.aas import Comparison, aligned_attention_scores, own_output
from retrieval.search.candidates import CandidateGenerator
from retrieval.search.coarse_vectors import LocalVectors
from retrieval.search.index_percentiles import IndexPercentiles
from retrieval.search.judging import judge
from retrieval.search.scaling import LocalScaling
from retrieval.search.tensors.candidate_tensors import CandidateScores
from retrieval.settings import UNLIKE_WEIGHT

BOARD_SETS = ("style_wikiart", "style_styledrop")
CROSSED = "style_styledrop"  # every style has the same subjects, by the files' names
SCALED = {
    "style_wikiart": "style",
    "style_styledrop": "style",
    "instance_dreambooth": "instance",
    "ip_dreambenchpp": "instance",
    "semantic_coco": "semantic",
    "semantic_imagenet": "semantic",
}
IMAGES = 3  # of a board
UNIONS = 1  # boards of each folder that are asked as a union too: each is a search of its own
TOP = 5
SEED = 7
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """A set, indexed, with the scores of all pairs by mode: ``[images, images]``."""

    root: Path
    paths: Sequence[Path]
    scores: Mapping[str, Scores]

    @classmethod
    def of(cls, folder: Path, scratch: Path, model: str, modes: Sequence[str]) -> "Scored":
        """Index a folder and score its pairs."""
        root = scratch / f"{folder.name}.diffsim"
        build_index(folder, root, model=model, modes=modes, run=BuildSettings(device="cpu"))
        reader = IndexReader(root)
        return cls(root, [Path(uri) for uri in reader.uris()], {mode: all_pairs(reader, mode) for mode in modes})

    @property
    def alike(self) -> NDArray[np.bool_]:
        """Which pairs lie in one folder, with each image and itself."""
        folders = np.array([str(path.parent) for path in self.paths])
        same: NDArray[np.bool_] = folders[:, None] == folders[None]
        return same

    def offsets(self, mode: str) -> Scores:
        """Return what csls takes off the score of every image, as a search does."""
        reader = IndexReader(self.root)
        modes = describe_extractor(stored_recipe(reader, self.root).settings.model).modes
        generator = CandidateGenerator(reader, modes, LocalVectors(reader, torch.device("cpu")))
        found = LocalScaling(reader, generator, IndexPercentiles(reader)).offsets(mode, np.arange(len(reader)))
        assert found is not None
        return found


@torch.inference_mode()
def all_pairs(reader: IndexReader, mode: str) -> Scores:
    """Return the exact scores of all pairs of stored images, as queries without noise of their own."""
    recipe = stored_recipe(reader, reader.layout.root)
    models = load_models(recipe.settings, recipe.targets, "cpu", True)
    arrays = reader.attention(mode, range(len(reader)))
    decode = qkv_decoder(reader, models.codec, mode, torch.device("cpu"))
    images = decode({name: torch.from_numpy(np.array(array)).float() for name, array in arrays.items()})
    how = Comparison(readout=models.readout(mode))
    own, scores = own_output(images, how), np.eye(len(reader))
    for row in range(len(reader) - 1):
        rest = slice(row + 1, None)
        found = aligned_attention_scores(images[row : row + 1], images[rest], how, own[row : row + 1], own[rest])
        scores[row, rest] = scores[rest, row] = found.numpy()
    return scores


def precision_percent(keys: Scores, relevant: NDArray[np.bool_]) -> float:
    """Return the average precision of the order by ``keys``, higher first, in percent; 0 if nothing is relevant."""
    return 100 * average_precision(keys, relevant) if relevant.any() else 0.0


def scaled(of: Scored, mode: str) -> str:
    """Return the mean average precision without and with csls, and the difference with its 95 % interval."""
    offsets, count = of.offsets(mode), len(of.paths)
    figures = []
    for row in range(count):
        others = np.delete(np.arange(count), row)
        right, keys = of.alike[row, others], of.scores[mode][row, others]
        figures.append((precision_percent(keys, right), precision_percent(keys - offsets[others], right)))
    none, csls = np.array(figures).T
    drawn = np.random.default_rng(SEED).integers(0, count, (2000, count))
    low, high = np.percentile((csls - none)[drawn].mean(axis=1), (2.5, 97.5))
    gain = (csls - none).mean()
    return f"{none.mean():.1f} | {csls.mean():.1f} | {gain:+.1f} ({low:+.1f} to {high:+.1f})"


def two_modes(of: Scored) -> Iterator[tuple[str, list[float]]]:
    """Yield precision among 5 and 15, and average precision, of images of the same style and another subject."""
    percentiles = IndexPercentiles(IndexReader(of.root))
    subjects = np.array([path.stem for path in of.paths])
    relevant = of.alike & (subjects[:, None] != subjects[None])
    for left_out, weights in itertools.product((False, True), ({}, {"semantic": UNLIKE_WEIGHT})):
        figures = []
        for row in range(len(of.paths)):
            kept = np.array([n for n in range(len(of.paths)) if not (left_out and n == row)])
            scored = {
                mode: CandidateScores(of.scores[mode][row, kept].astype(np.float32), np.ones(len(kept), bool))
                for mode in ("style", *weights)
            }
            judged = judge(percentiles.of, "style", scored, weights)
            assert judged is not None
            keys = of.scores["style"][row, kept] if judged.keys is None else judged.keys
            hits = relevant[row, kept][np.argsort(-keys, kind="stable")]
            precision = precision_percent(keys, relevant[row, kept])
            figures.append((100 * hits[:TOP].mean(), 100 * hits[: 3 * TOP].mean(), precision))
        name = "--mode style" + (" --not semantic" if weights else "") + (" --exclude-copies" if left_out else "")
        yield name, np.mean(figures, axis=0).tolist()


def boards(of: Scored, per_group: int) -> Iterator[tuple[str, float]]:
    """Yield the mean average precision of boards of three images, asked in each way."""
    random, offsets, scores = np.random.default_rng(SEED), of.offsets("style"), of.scores["style"]
    drawn: list[tuple[int, ...]] = []
    for members in np.unique(of.alike, axis=0):
        every = list(itertools.combinations(np.flatnonzero(members).tolist(), IMAGES))
        drawn += [every[n] for n in random.choice(len(every), min(per_group, len(every)), replace=False)]
    figures: dict[str, list[float]] = {}
    for board in drawn:
        rest = np.setdiff1d(np.arange(len(of.paths)), board)
        right, each = of.alike[board[0], rest], scores[list(board)][:, rest]
        alone = [precision_percent(keys, right) for keys in each]
        joined = {"mean": each.mean(axis=0), "max": each.max(axis=0)}
        found: dict[str, float] = {
            "the three asked alone, mean": float(np.mean(alone)),
            "the best of the three, of each board": max(alone),
        }
        for name, keys in joined.items():
            found[f"--combine {name} --scaling none"] = precision_percent(keys, right)
            found[f"--combine {name}"] = precision_percent(keys - offsets[rest], right)
        for name, figure in found.items():
            figures.setdefault(name, []).append(figure)
    yield "boards", len(drawn)
    yield from ((name, float(np.mean(found))) for name, found in figures.items())
    few = drawn[:: max(1, per_group // UNIONS)]
    yield f"--combine mean, {len(few)} of these boards", _searched(of, few, "mean")
    yield f"--combine union, {len(few)} of these boards", _searched(of, few, "union")


def _searched(of: Scored, drawn: Sequence[Sequence[int]], combine: str) -> float:
    """Ask an engine, and return the mean average precision of its results."""
    engine, figures = Engine.open(of.root, EngineSettings(device="cpu")), []
    for board in drawn:
        query = Query([of.paths[n] for n in board], combine=combine)  # type: ignore[arg-type]
        found = engine.search(query, "style", exhaustive=True, exclude_copies=True, k=len(of.paths))
        right = np.array([Path(result.path).parent == of.paths[board[0]].parent for result in found])
        figures.append(precision_percent(-np.arange(len(right), dtype=np.float64), right))
    return float(np.mean(figures))


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--per-group", type=int, default=20, help="boards of each folder")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        sets = {}
        print("| set | mode | mAP | with csls | difference |\n|---|---|---|---|---|")
        for name, mode in SCALED.items():
            modes = [mode, "semantic"] if name == CROSSED else [mode]
            sets[name] = Scored.of(asked.data / name, Path(temporary), asked.model, modes)
            print(f"| {name} | {mode} | {scaled(sets[name], mode)} |", flush=True)
        print(f"\n| {CROSSED} | P@5 | P@15 | mAP |\n|---|---|---|---|")
        for name, figures in two_modes(sets[CROSSED]):
            print(f"| `{name}` | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |", flush=True)
        for name in BOARD_SETS:
            print(f"\n| {name}, boards of 3 | mAP |\n|---|---|")
            for way, figure in boards(sets[name], asked.per_group):
                print(f"| {way} | {figure:.1f} |", flush=True)


if __name__ == "__main__":
    main()
