"""The sets of a comparison: folders of groups, judged by mAP, and triplets of people or protocols, by accuracy."""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import UsageError
from retrieval.evaluation.benchmarks.paper import BenchOptions
from retrieval.evaluation.benchmarks.table import BENCHES, describe_bench
from retrieval.evaluation.pairs import average_precision
from retrieval.evaluation.runner import ALL, sets_below
from retrieval.evaluation.triplets import Triplet, images_of, read_groups

OF_GROUPS = ("groups", "sref", "instantstyle")  # benchmarks whose folders are groups
MAP, ACCURACY = "mAP", "accuracy"

NOT_FOUND = -1e9  # below every score and every negative rank; finite, because equal scores are told by differences

T = TypeVar("T")

Scores = NDArray[np.float64]
"""One query's scores of all images of a set, float64 ``[images]``; higher is closer, :data:`NOT_FOUND` is lowest."""


@dataclass(frozen=True)
class LabelledSet:
    """Images to search in, queries, and labels: the group of every image, or triplets."""

    name: str
    images: Sequence[Path]
    queries: Sequence[Path]
    groups: Mapping[Path, str] = field(default_factory=dict)  # of every image; empty: the labels are triplets
    triplets: Sequence[Triplet] = ()

    @property
    def measure(self) -> str:
        """The measure: mAP of leave-one-out searches, or the share of triplets that are right."""
        return MAP if self.groups else ACCURACY

    def judge(self, query: Path, scores: Scores) -> Iterator[tuple[str, float]]:
        """Yield the bootstrap's group and the value, 0 to 1, of each judgement of one query's scores."""
        if self.groups:
            others = np.array([path != query for path in self.images])
            relevant = np.array([self.groups[path] == self.groups[query] for path in self.images])
            yield self.groups[query], average_precision(scores[others], relevant[others])
            return
        place = {path: row for row, path in enumerate(self.images)}
        for number, triplet in enumerate(self.triplets):
            if triplet.reference == query:
                yield str(number), preference(scores[place[triplet.nearer]], scores[place[triplet.farther]])

    def identity(self, settings: Mapping[str, Any]) -> str:
        """Return a digest of the files, the labels and the ``settings`` of a measurement: 16 hex digits."""
        files = sorted({*self.images, *self.queries})
        states = [path.stat() for path in files]
        facts = {
            "files": [[str(path), s.st_size, s.st_mtime_ns] for path, s in zip(files, states, strict=True)],
            "groups": sorted([str(path), group] for path, group in self.groups.items()),
            "triplets": [[str(t.reference), str(t.nearer), str(t.farther)] for t in self.triplets],
            "queries": [str(path) for path in self.queries],
            "settings": settings,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def preference(nearer: float, farther: float) -> float:
    """Return 1 if the nearer image of a triplet scores higher, 0 if it scores lower, and 1/2 for a tie."""
    return 0.5 if nearer == farther else float(nearer > farther)


def load_sets(bench: str, source: Path, options: BenchOptions, queries: int | None = None) -> list[LabelledSet]:
    """Load the sets of a benchmark; ``all`` takes every folder in ``source`` as a set of its own.

    Args:
        bench: a benchmark with groups or triplets, or ``all``.
        source: the folder or CSV of the benchmark.
        options: the choices of its protocol.
        queries: at most so many queries, or triplets, of each set, drawn with the seed of ``options``; None: all.

    Raises:
        UsageError: an unknown benchmark, data in another layout, or groups without a second image.
    """
    if bench != ALL and bench not in BENCHES:
        raise UsageError(f"'{bench}' can't be compared; known: {', '.join(BENCHES)}, {ALL}")
    if bench == ALL:
        return [_load(kind, home.name, home, options, queries) for kind, home in sets_below(source)]
    return [_load(bench, source.resolve().name if bench in OF_GROUPS else bench, source, options, queries)]


def _load(kind: str, name: str, source: Path, options: BenchOptions, most: int | None) -> LabelledSet:
    if kind in OF_GROUPS:
        return _grouped(name, source, options.seed, most)
    triplets = _drawn(describe_bench(kind).load(source, options), options.seed, most)
    triplets = [Triplet(t.reference.absolute(), t.nearer.absolute(), t.farther.absolute()) for t in triplets]
    references, gallery = images_of(triplets)
    return LabelledSet(name, gallery, references, triplets=triplets)


def _grouped(name: str, source: Path, seed: int, most: int | None) -> LabelledSet:
    groups = read_groups(source)
    members = {path: group for group, paths in groups.items() for path in paths}
    able = [path for path in sorted(members) if len(groups[members[path]]) > 1]
    if not able:
        raise UsageError(f"{source} holds no folder of two or more images, so no image has another to find")
    return LabelledSet(name, sorted(members), _drawn(able, seed, most), members)


def _drawn(values: Sequence[T], seed: int, most: int | None) -> list[T]:
    if most is None or len(values) <= most:
        return list(values)
    return [values[row] for row in sorted(random.Random(seed).sample(range(len(values)), most))]
