"""`python -m tests.bench.scores.calibration DATA [--model mini]`: are percentiles even, and do thresholds carry over?

Held pairs are drawn anew, without the pairs of the index's own sample. Even percentiles have a share of p below each p;
the largest difference of both is the Kolmogorov-Smirnov distance, here in points.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval import BuildSettings, build_index
from retrieval.calibration.percentiles import Percentiles
from retrieval.calibration.sampling import ScoredPairs, plan_pairs, sample_scores
from retrieval.calibration.upkeep import read_calibration
from retrieval.encoding.loaded_models import LoadedModels, load_models
from retrieval.encoding.recipe import stored_recipe
from tests.bench.scores.order import all_pairs

TWO = {
    "instance": ("instance_dreambooth", "ip_dreambenchpp"),
    "style": ("style_styledrop", "style_wikiart"),
    "semantic": ("semantic_coco", "semantic_imagenet"),
}
THRESHOLDS = (95.0, 99.0, 99.5)
DRAWS = 2
HELD_SEED = 11


@dataclass(frozen=True)
class Opened:
    """An index and its models."""

    reader: IndexReader
    models: LoadedModels

    @classmethod
    def build(cls, sources: Sequence[Path], index: Path, model: str, modes: Sequence[str] | None = None) -> "Opened":
        """Index ``sources``; the build draws the index's own pairs."""
        build_index(list(sources), index, model=model, modes=modes, run=BuildSettings(device="cpu"))
        reader = IndexReader(index)
        recipe = stored_recipe(reader, index)
        return cls(reader, load_models(recipe.settings, recipe.targets, "cpu", True))

    def drawn(self, mode: str, seed: int | None = None) -> ScoredPairs:
        """Score random pairs: those of the index's own sample, or others."""
        rows, size = np.arange(len(self.reader)), self.reader.row_bytes(mode)
        plan = plan_pairs(rows, size, False) if seed is None else plan_pairs(rows, size, False, seed)
        return ScoredPairs.join(list(sample_scores(self.reader, self.models, mode, plan)))

    def percentiles(self, mode: str) -> Percentiles:
        """Return the index's own."""
        found = read_calibration(self.reader, mode)
        assert found is not None
        return found.percentiles


def distance(percentiles: NDArray[np.float64]) -> float:
    """Return by how many points percentiles differ from even ones, at most."""
    found, count = np.sort(percentiles), len(percentiles)
    after = 100 * np.arange(1, count + 1) / count
    return float(np.maximum(np.abs(after - found), np.abs(after - 100 / count - found)).max())


def even(opened: Opened) -> Iterator[tuple[str, int, float]]:
    """Yield mode, held pairs, and the median distance of several draws."""
    for mode in opened.reader.generation.modes:
        own = _names(opened.drawn(mode))
        found, counts = [], []
        for draw in range(DRAWS):
            held = opened.drawn(mode, HELD_SEED + draw)
            is_new = ~np.isin(_names(held), own)
            counts.append(int(is_new.sum()))
            found.append(distance(opened.percentiles(mode).percentiles(held.scores[is_new])))
        yield mode, min(counts), float(np.median(found))


def _names(pairs: ScoredPairs) -> NDArray[np.int64]:
    """Return one number for each unordered pair."""
    low, high = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    return low * (1 << 32) + high


def carried_over(first: Opened, second: Opened, mode: str) -> Iterator[tuple[str, list[str]]]:
    """Yield thresholds, and the precision and share of pairs that pass them in both collections.

    All pairs are judged; one is right if both images lie in one folder. Score thresholds are those that as many pairs
    of the first collection pass.
    """
    judged = [_judged(opened, mode) for opened in (first, second)]
    for threshold in THRESHOLDS:
        yield f"percentile {threshold:g}", [_passing(p >= threshold, right) for _, p, right in judged]
        score = first.percentiles(mode).score_at(threshold)
        yield f"score {score:.3f}", [_passing(s >= score, right) for s, _, right in judged]


def _judged(opened: Opened, mode: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    folders = np.array([str(Path(path).parent) for path in opened.reader.uris()])
    first, second = np.triu_indices(len(folders), 1)
    scores = all_pairs(opened.reader, mode)[first, second]
    return scores, opened.percentiles(mode).percentiles(scores), folders[first] == folders[second]


def _passing(passed: NDArray[np.bool_], right: NDArray[np.bool_]) -> str:
    share = 100 * passed.mean()
    return f"{100 * right[passed].mean():.0f} % ({share:.1f} %)" if passed.any() else f"none ({share:.1f} %)"


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="mini")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        print("| mode | held pairs | distance, points |\n|---|---|---|")
        for mode, count, points in even(Opened.build([asked.data], scratch / "all.diffsim", asked.model)):
            print(f"| {mode} | {count} | {points:.1f} |", flush=True)
        for mode, names in TWO.items():
            print(f"\n| {mode} | {names[0]} | {names[1]} |\n|---|---|---|")
            both = [
                Opened.build([asked.data / name], scratch / f"{name}.diffsim", asked.model, [mode]) for name in names
            ]
            for threshold, passing in carried_over(both[0], both[1], mode):
                print(f"| {threshold} | {' | '.join(passing)} |", flush=True)


if __name__ == "__main__":
    main()
