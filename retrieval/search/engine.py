"""The engine: open an index, ask it for neighbours.

A search encodes the query once, takes candidates from the coarse stage, reads their stored Q/K/V, computes those that
are lacking, and orders them by the exact DiffSim score. An engine sees the generation it opened, whatever writers do,
and is safe in many threads.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

from index_store.codecs import find_codec
from index_store.lookup import locate_image
from index_store.reader import IndexReader
from index_store.remote.pull import existing_root
from index_store.tensors.cache import TensorCache
from retrieval.devices.selection import choose_device
from retrieval.encoding.batches import batch_size, workers
from retrieval.encoding.fingerprint import check_fingerprint
from retrieval.encoding.loaded_models import EncodedImages, LoadedModels, ModelInputs, StoredBatch, load_models
from retrieval.encoding.recipe import lacks_modes, stored_recipe
from retrieval.encoding.stored_tensors import DecodeQKV, qkv_decoder
from retrieval.encoding.timing import SharedTiming
from retrieval.errors import ImageError, UsageError
from retrieval.models.modes import Outputs
from retrieval.models.registry import describe_extractor
from retrieval.scoring.aas import QKV, aligned_attention_scores
from retrieval.search.candidates import CandidatePicker
from retrieval.search.index_info import about_index, describe_index
from retrieval.search.memory_cache import HotRows, HotTier, kept_bytes, kept_dtype
from retrieval.search.query import ImageInput, LoadedQuery, load_query
from retrieval.search.ranking import nearest
from retrieval.search.results import Results
from retrieval.search.tensor_sources import CandidateScorer, Machinery, OnComputed, Scored, search_notes
from retrieval.settings import BuildSettings, EngineSettings, ModelSettings, SearchChoices, SearchSettings
from retrieval.types import Role

QUERIES_AT_ONCE = 16  # that share what is read of their candidates

OnUnusable = Callable[[ImageInput, ImageError], None]
"""Told of a query that is no usable image."""


class Engine:
    """Search one index; make one with :meth:`open`."""

    def __init__(self, reader: IndexReader, settings: EngineSettings) -> None:
        """Take an opened index; models are loaded at the first search."""
        self._reader = reader
        self._settings = settings
        self._recipe = stored_recipe(reader, reader.layout.root)
        self._device = choose_device(settings.device)
        modes = describe_extractor(self._recipe.settings.model).modes
        self._picker = CandidatePicker(reader, modes, self._device)
        self._cache = TensorCache(reader.layout, settings.max_cache)
        self._hot = HotTier(kept_bytes(self._device) if settings.memory is None else settings.memory)
        self._restorers: dict[str, DecodeQKV] = {}
        self._loading, self._encoding = threading.RLock(), threading.Lock()

    @classmethod
    def open(cls, index: str | Path, settings: EngineSettings | None = None) -> "Engine":
        """Open the index at ``index``, a folder or an ``s3://`` URL.

        Raises:
            IndexNotFoundError, IndexCorruptError, IndexIncompatibleError: see :mod:`index_store.errors`.
        """
        return cls(IndexReader(existing_root(index)), settings or EngineSettings())

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that the index was built for, its default first."""
        return tuple(self._recipe.targets)

    def search(
        self,
        query: ImageInput,
        mode: str | None = None,
        on_computed: OnComputed = lambda done, total: None,
        **choices: Unpack[SearchChoices],
    ) -> Results:
        """Return the nearest neighbours of ``query``.

        Candidates whose tensors the index lacks are computed from their files. Those whose file is gone, or is not
        what was indexed any more, are left out, and a note says so.

        Args:
            query: see :data:`ImageInput`. For an item of the index, give its path.
            mode: one of :attr:`modes`; the first of them by default.
            on_computed: told how many candidates were computed of how many, when there are any to compute.
            **choices: fields of :class:`retrieval.settings.SearchSettings`.

        Raises:
            UsageError: an unknown mode, or choices that make no sense.
            IndexIncompatibleError: the index was not built for this mode, or its models are not those found here.
            ImageError: the query is no usable image.
        """
        return next(self.search_many([query], mode, on_computed, **choices))[1]

    def search_many(
        self,
        queries: Iterable[ImageInput],
        mode: str | None = None,
        on_computed: OnComputed = lambda done, total: None,
        on_unusable: OnUnusable | None = None,
        **choices: Unpack[SearchChoices],
    ) -> Iterator[tuple[ImageInput, Results]]:
        """Yield every query with its nearest neighbours, in the order given; see :meth:`search`.

        What several of a few queries have in common is read and computed once; results are those of single searches.

        Args:
            queries: taken some at a time, as results are.
            mode: one of :attr:`modes`.
            on_computed: as for a single search, for some queries at a time.
            on_unusable: told of queries that are no usable images, which then have no results; by default the first
                of them is an ImageError.
            **choices: as for a single search.
        """
        wanted, chosen = SearchSettings(**choices), self._mode(mode)

        def searches() -> Iterator[tuple[ImageInput, Results]]:
            remaining = iter(queries)
            while some := list(islice(remaining, QUERIES_AT_ONCE)):
                loaded = list(self._load(some, on_unusable))
                if loaded:
                    found = self._search([query for _, query in loaded], chosen, wanted, on_computed)
                    yield from zip((query for query, _ in loaded), found, strict=True)

        return searches()

    def _load(
        self, queries: Sequence[ImageInput], on_unusable: OnUnusable | None
    ) -> Iterator[tuple[ImageInput, LoadedQuery]]:
        for query in queries:
            try:
                yield query, load_query(query, self._models.rules)
            except ImageError as error:
                if on_unusable is None:
                    raise
                on_unusable(query, error)

    def _search(
        self, queries: Sequence[LoadedQuery], mode: str, wanted: SearchSettings, on_computed: OnComputed
    ) -> list[Results]:
        """Search for some queries at once; what they spent together is shared out evenly."""
        timing = SharedTiming(len(queries))
        with timing.of("embed"):
            need = Outputs((mode,) if wanted.rerank else (), tuple(self._models.embedders))
            prepared = [self._models.prepare(query.image, need) for query in queries]
            vectors = self._encode(prepared, "query", Outputs(encoders=need.encoders)).vectors
        with timing.of("coarse"):
            each = [{name: found[n : n + 1] for name, found in vectors.items()} for n in range(len(queries))]
            rankings = [
                self._picker.pick(mine, mode, wanted, self._copies(query) if wanted.exclude_query else ())
                for query, mine in zip(queries, each, strict=True)
            ]
        scored: Sequence[Scored | None] = [None] * len(queries)
        if wanted.rerank:
            scorer = self._scorer(mode, wanted)
            scorer.begin([ranking.rows for ranking in rankings])  # reads while the queries' tensors are computed
            with timing.of("embed"):
                tensors = self._tensors(prepared, "query", mode)
            scored = scorer.score([tensors[n : n + 1] for n in range(len(queries))], on_computed)
        about = about_index(self._reader, self._recipe)
        return [
            Results(
                results=nearest(self._reader, ranking, mine, wanted),
                query=query.about,
                mode=mode,
                index=about,
                timing_ms={**timing.ms, **({} if mine is None else mine.timing_ms)},
                notes=self._notes(mode, mine),
                computed=0 if mine is None else mine.computed,
                cached=0 if mine is None else mine.cached,
                left_out=0 if mine is None else mine.left_out,
            )
            for query, ranking, mine in zip(queries, rankings, scored, strict=True)
        ]

    def _copies(self, query: LoadedQuery) -> list[int]:
        """Return the rows whose file has the query's bytes."""
        return self._reader.find("sha256", query.about["sha256"]) if "sha256" in query.about else []

    def _scorer(self, mode: str, wanted: SearchSettings) -> CandidateScorer:
        hot = None if wanted.exhaustive else self._hot_rows(mode)  # all images would drive out those in use
        restore, threads = self._restore(mode), workers(BuildSettings())
        machinery = Machinery(self._models, self._encode_candidates, restore, hot, self._batch_size, threads)
        readout = self._models.readout(mode)
        return CandidateScorer(self._reader, self._cache, machinery, mode, wanted.similarity, readout)

    def _hot_rows(self, mode: str) -> HotRows | None:
        if not self._hot.budget:
            return None
        return HotRows(self._hot, mode, kept_dtype(self._device, find_codec(self._recipe.settings.codec).hidden))

    def _encode_candidates(self, batch: Sequence[ModelInputs], need: Outputs) -> StoredBatch:
        with self._encoding:
            return self._models.encode_stored(batch, need)

    def score(self, first: ImageInput, second: ImageInput, mode: str | None = None) -> float:
        """Return the exact score of one pair; ``first`` is the query, ``second`` takes the gallery's role."""
        chosen = self._mode(mode)
        pair: tuple[tuple[ImageInput, Role], ...] = ((first, "query"), (second, "gallery"))
        query, candidate = (
            self._tensors([self._models.prepare(each.image, Outputs((chosen,)))], role, chosen)
            for each, role in ((load_query(image, self._models.rules), role) for image, role in pair)
        )
        readout = self._models.readout(chosen)
        return float(aligned_attention_scores(query, candidate, readout=readout)[0])

    def locate(self, text: str) -> Path | str:
        """Return the image that ``text`` means: a file's path, ``id:N``, or the end of one indexed item's path.

        Raises:
            UsageError: nothing, or several items; the message lists some.
        """
        return locate_image(self._reader, text)

    def paths(self) -> list[str]:
        """Return the indexed images' paths, in the order of their ids."""
        return self._reader.uris()

    def info(self) -> dict[str, Any]:
        """Return what the index is, as JSON values."""
        return describe_index(self._reader, self._recipe)

    def _mode(self, mode: str | None) -> str:
        name = mode or self.modes[0]
        if name in self._recipe.targets:
            return name
        if name not in describe_extractor(self._recipe.settings.model).modes:
            raise UsageError(f"unknown mode '{name}'; this index has: {', '.join(self.modes)}")
        raise lacks_modes(self._reader, [name])

    def _encode(self, prepared: Sequence[ModelInputs], role: Role, need: Outputs) -> EncodedImages:
        with self._encoding:  # layers are read by hooks on the one network: one pass at a time
            return self._models.encode_in_batches(prepared, role, need, self._batch_size)

    def _tensors(self, prepared: Sequence[ModelInputs], role: Role, mode: str) -> QKV:
        return self._encode(prepared, role, Outputs((mode,))).tensors[mode].to(self._device)

    @cached_property
    def _batch_size(self) -> int:
        return batch_size(self._recipe.settings, BuildSettings(device=self._settings.device))

    @cached_property
    def _models(self) -> LoadedModels:
        with self._loading:
            if "_models" in self.__dict__:
                loaded: LoadedModels = self.__dict__["_models"]
                return loaded
            generation, root = self._reader.generation, self._reader.layout.root
            models = load_models(
                self._model_settings(), self._recipe.targets, self._settings.device, self._settings.offline
            )
            # The dtype of a query may differ from the gallery's within the stated tolerance: a CPU has no fast float16.
            check_fingerprint(generation.fingerprint, models.fingerprint(), root, ignore=("model.dtype",))
            return models

    def _model_settings(self) -> ModelSettings:
        stored, here = self._recipe.settings, self._settings
        on_cpu = self._device.type == "cpu"
        folders = {name: here.encoders.get(name, folder) for name, folder in (stored.encoders or {}).items()}
        return replace(
            stored,
            weights=here.weights or stored.weights,
            dtype="float32" if on_cpu and stored.dtype == "float16" else stored.dtype,
            encoders=folders,
        )

    def _restore(self, mode: str) -> DecodeQKV:
        with self._loading:
            if mode not in self._restorers:
                codec = find_codec(self._recipe.settings.codec)
                self._restorers[mode] = qkv_decoder(self._reader, codec, mode, self._device)
            return self._restorers[mode]

    def _notes(self, mode: str, scored: Scored | None) -> tuple[str, ...]:
        warning = describe_extractor(self._recipe.settings.model).warnings.get(mode)
        root = self._reader.layout.root
        return (*((warning,) if warning else ()), *search_notes(root, mode, scored, self._picker.without_vector(mode)))
