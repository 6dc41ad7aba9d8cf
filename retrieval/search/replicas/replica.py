"""One replica: it holds partitions of an index, finds candidates among their vectors, and scores their tensors.

A replica may live in this process or on another machine that sees the index. It holds several generations at a time, so
that a new one is opened while the old one is asked.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from index_store.errors import IndexStoreError
from index_store.generation import read_generation
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.remote.nearby import NearbyTensors
from index_store.remote.object_store import is_url
from index_store.remote.pull import existing_root
from index_store.tensors.cache import TensorCache
from retrieval.devices.memory import tried_twice
from retrieval.devices.selection import choose_device
from retrieval.encoding.coarse_encoders import usable_encoders
from retrieval.encoding.loaded_models import LoadModels, LoadOnce, load_models
from retrieval.encoding.recipe import stored_recipe
from retrieval.search.coarse_vectors import CosinesAsk, Floats, Rows, closest
from retrieval.search.replicas.ownership import rows_of_segments
from retrieval.search.replicas.partition_index import PartAbout, PartAsk, PartitionIndex, PartNearest
from retrieval.search.reranking import QueryTensors
from retrieval.search.scoring_context import ScoringContext, load_context
from retrieval.search.tensors.candidate_tensors import CandidateScores, Scored
from retrieval.search.tensors.local_scorer import LocalScorer, ScoringRun
from retrieval.search.tensors.memory_cache import default_budget
from retrieval.settings import EngineSettings
from retrieval.types import Fractions, Similarity

Partitions = Mapping[int, Sequence[str]]
"""Names of segments, by partition."""


@dataclass(frozen=True)
class ReplicaSpec:
    """Everything that a replica needs before it opens a generation, as plain data."""

    index: str  # its folder, which every machine sees under this path, or its URL
    engine: EngineSettings
    near_bytes: int = 0  # of tensors of an index in an object store, kept on the replica's own disk
    threads: int | None = None  # of torch; None: as many as the process finds
    load: LoadModels = load_models
    loads_at_once: bool = True  # the models, as a generation is opened; False: with the first score


@dataclass(frozen=True)
class ScoreAsk:
    """What replicas score candidates for: the same for all of them, and sent once."""

    mode: str
    similarity: Similarity
    keep: bool  # candidates in memory
    queries: Sequence[QueryTensors] = ()  # without rows, on the CPU
    region: Scored | None = None  # whose places are looked for, on the CPU

    @property
    def run(self) -> ScoringRun:
        """The run of a replica's own scorer."""
        return ScoringRun(self.mode, self.similarity, self.keep)


class Replica:
    """Holds partitions; safe in many threads."""

    def __init__(self, spec: ReplicaSpec) -> None:
        """Take the index; nothing is opened yet."""
        if spec.threads is not None:
            import torch

            torch.set_num_threads(spec.threads)
        self._spec = replace(spec, load=LoadOnce(spec.load))
        self._opened: dict[int, _OpenedGeneration] = {}
        self._opening = threading.Lock()
        self._near: NearbyTensors | None = None

    def ready(self) -> int:
        """Return the number of this process; an answer says that the replica lives."""
        return os.getpid()

    def open(self, number: int, partitions: Partitions) -> dict[int, dict[str, PartAbout]]:
        """Hold ``partitions`` of generation ``number``, beside those held already, with the models and vectors loaded.

        Returns:
            By partition and encoder, what a router must know; encoders without a vector there are missing.

        Raises:
            IndexStoreError: the generation is gone, or damaged.
            IndexIncompatibleError, ModelError, UsageError: see :func:`retrieval.search.scoring_context.load_context`.
        """
        with self._opening:
            opened = self._opened.get(number)
            if opened is None:
                opened = _OpenedGeneration(_reader_of(self._spec.index, number), self._spec)
            found = {partition: opened.hold(partition, names) for partition, names in partitions.items()}
            self._opened[number] = opened
            self._keep_near(opened)
            return found

    def keep(self, numbers: Sequence[int]) -> None:
        """Hold no other generations than these any more."""
        with self._opening:
            self._opened = {number: each for number, each in self._opened.items() if number in numbers}

    def nearest(self, number: int, partition: int, asks: Sequence[PartAsk]) -> list[PartNearest]:
        """Return the nearest rows of a partition for each ask."""
        indexes = self._of(number).indexes[partition]
        return [indexes[part.ask.encoder].nearest(part) for part in asks]

    def cosines(self, number: int, partition: int, asks: Sequence[CosinesAsk]) -> list[Floats]:
        """Return the cosines of rows of a partition for each ask."""
        indexes = self._of(number).indexes[partition]
        return [closest(indexes[ask.encoder], ask.vectors, ask.rows) for ask in asks]

    def vectors(self, number: int, partition: int, encoder: str, rows: Rows) -> Floats:
        """Return the vectors of rows of a partition."""
        return self._of(number).indexes[partition][encoder].vectors(rows)

    def score(
        self, number: int, partition: int, asked: ScoreAsk, rows: Mapping[int, Rows]
    ) -> dict[int, CandidateScores]:
        """Return the exact scores of some queries' rows, by the number of the query.

        Raises:
            MemoryFullError: memory ran out twice, the second time without candidates cached in memory.
        """
        context, scorer = self._of(number).load()
        queries = [
            replace(asked.queries[query], qkv=asked.queries[query].qkv.to(context.device), rows=mine.tolist())
            for query, mine in rows.items()
        ]

        def attempt() -> list[CandidateScores]:
            return scorer.begin(context, list(rows.values()), asked.run).scores(queries)

        return dict(zip(rows, tried_twice(attempt, scorer.make_room, context.device), strict=True))

    def boxes(self, number: int, partition: int, asked: ScoreAsk, rows: Sequence[int]) -> Mapping[int, Fractions]:
        """Return where rows have the region that is asked for."""
        (context, scorer), region = self._of(number).load(), asked.region
        assert region is not None
        return scorer.boxes(context, on_device(region, context.device), rows, asked.run)

    def _of(self, number: int) -> "_OpenedGeneration":
        try:
            return self._opened[number]
        except KeyError:
            raise IndexStoreError(f"generation {number} of {self._spec.index} is not open on this replica") from None

    def _keep_near(self, opened: "_OpenedGeneration") -> None:
        if self._spec.near_bytes and is_url(self._spec.index):
            self._near = self._near or NearbyTensors(opened.reader.layout, self._spec.near_bytes)
            self._near.keep(opened.reader.generation, sorted(opened.segments))


class _OpenedGeneration:
    """One generation, its partitions that are held here, and the models."""

    def __init__(self, reader: IndexReader, spec: ReplicaSpec) -> None:
        self.reader, self._spec = reader, spec
        self._device = choose_device(spec.engine.device)
        self._loading = threading.Lock()
        self._scoring: tuple[ScoringContext, LocalScorer] | None = None
        self.indexes: dict[int, dict[str, PartitionIndex]] = {}
        self.segments: set[str] = set()
        if spec.loads_at_once:
            self.load()

    def load(self) -> tuple[ScoringContext, LocalScorer]:
        """Return the loaded models, and the scorer with the candidates in memory."""
        with self._loading:
            if self._scoring is None:
                reader, engine = self.reader, self._spec.engine
                recipe = stored_recipe(reader, reader.layout.root)
                memory = default_budget(self._device) if engine.memory is None else engine.memory
                cache = TensorCache(reader.layout, engine.max_cache)
                context = load_context(reader, recipe, engine, cache, self._spec.load)
                self._scoring = context, LocalScorer(recipe, self._device, memory)
            return self._scoring

    def hold(self, partition: int, names: Sequence[str]) -> dict[str, PartAbout]:
        """Read a partition's vectors, unless they are held already."""
        if partition not in self.indexes:
            found = {}
            for encoder in usable_encoders(self.reader):
                rows = rows_of_segments(self.reader, self.reader.vector_reader.segment_numbers(encoder), names)
                if len(rows):
                    found[encoder] = PartitionIndex(self.reader, encoder, rows, self._device)
            self.indexes[partition] = found
            self.segments |= set(names)
        return {encoder: index.about for encoder, index in self.indexes[partition].items()}


def _reader_of(index: str, number: int) -> IndexReader:
    """Open generation ``number``, whatever the newest one is by now."""
    root = existing_root(index) if is_url(index) else Path(index)
    path = Layout(root).generation(number)
    if not path.exists():
        raise IndexStoreError(f"generation {number} of {index} is gone: a newer one has taken its place")
    return IndexReader(root, read_generation(path))


def on_device(region: Scored, device: object) -> Scored:
    """Return a region, and its small drawing, with their tensors on ``device``."""
    small = None if region.small is None else on_device(region.small, device)
    return replace(region, qkv=region.qkv.to(str(device)), small=small)
