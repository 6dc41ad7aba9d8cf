"""The engine: open an index, search it for neighbours.

A search encodes the query, generates candidates from pooled vectors, and orders them by the exact DiffSim score of
their tensors, which are read, taken from a cache or computed. An engine sees the generation of the index that it
opened, whatever writers do, and is safe in many threads.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from index_store.lookup import locate_image
from index_store.reader import IndexReader
from index_store.remote.pull import existing_root
from index_store.tensors.cache import TensorCache
from retrieval.devices.memory import tried_twice
from retrieval.devices.selection import choose_device
from retrieval.encoding.loaded_models import LoadModels, ModelInputs, load_models
from retrieval.encoding.recipe import codec_of, lacks_modes, stored_recipe
from retrieval.encoding.timing import SharedTiming
from retrieval.errors import ImageError
from retrieval.models.modes import Outputs
from retrieval.models.registry import describe_extractor, unknown_mode
from retrieval.progress import Cancellation, OnProgress, ignore_progress
from retrieval.scoring.aas import Comparison, aligned_attention_scores, bounded
from retrieval.search.candidate_tensors import CandidateScores, CandidateTensors
from retrieval.search.candidates import CandidateGenerator, Candidates, Vectors
from retrieval.search.index_info import about_index, describe_index
from retrieval.search.memory_cache import MemoryCache, ModeCache, cache_dtype, default_budget
from retrieval.search.notes import search_notes
from retrieval.search.query import ImageInput, Query, QueryInput
from retrieval.search.ranking import rank_candidates
from retrieval.search.results import Note, Results
from retrieval.search.scoring_context import ScoringContext, load_context
from retrieval.settings import EngineSettings, SearchChoices, SearchSettings
from retrieval.types import Role

logger = logging.getLogger(__name__)

QUERIES_AT_ONCE = 16  # they share the reading and computing of common candidates

OnUnusable = Callable[[Any, ImageError], None]
"""Called with a query that can't be used, as it was given, and the reason."""


@dataclass(frozen=True)
class _Request:
    """What a search is asked for, beside its queries."""

    mode: str
    settings: SearchSettings
    on_progress: OnProgress
    cancel: Cancellation | None


class Engine:
    """Search one index; make one with :meth:`open`."""

    def __init__(self, reader: IndexReader, settings: EngineSettings, load: LoadModels | None = None) -> None:
        """Take an opened index; the first search calls ``load``, by default :func:`load_models`."""
        self._reader = reader
        self._settings = settings
        self._load = load_models if load is None else load
        self._recipe = stored_recipe(reader, reader.layout.root)
        self._model = describe_extractor(self._recipe.settings.model)
        self._device = choose_device(settings.device)
        self._generator = CandidateGenerator(reader, self._model.modes, self._device)
        self._tensor_cache = TensorCache(reader.layout, settings.max_cache)
        budget = default_budget(self._device) if settings.memory is None else settings.memory
        self._memory_cache = MemoryCache(budget)
        self._loaded: ScoringContext | None = None
        self._loading = threading.Lock()

    @classmethod
    def open(
        cls, index: str | Path, settings: EngineSettings | None = None, load: LoadModels | None = None
    ) -> "Engine":
        """Open the index at ``index``, a folder or an ``s3://`` URL.

        Args:
            index: where the index is.
            settings: the device, folders of weights, and budgets of the caches.
            load: loads the index's models at the first search; None: :func:`load_models`.

        Raises:
            IndexNotFoundError, IndexCorruptError, IndexIncompatibleError: see :mod:`index_store.errors`.
        """
        engine = cls(IndexReader(existing_root(index)), settings or EngineSettings(), load)
        logger.info("opened %s: %d items", index, len(engine))
        return engine

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that the index was built for, its default first."""
        return tuple(self._recipe.targets)

    def search(
        self,
        query: QueryInput,
        mode: str | None = None,
        on_progress: OnProgress = ignore_progress,
        cancel: Cancellation | None = None,
        **choices: Unpack[SearchChoices],
    ) -> Results:
        """Return the nearest neighbours of ``query``.

        Candidates whose tensors are not in the index are computed from their files. Candidates whose file is gone or
        has changed since are left out, and a note says so.

        Args:
            query: see :data:`retrieval.search.query.ImageInput`, or a :class:`Query`. For an item of the index, give
                its path.
            mode: one of :attr:`modes`; the first of them by default.
            on_progress: hears of the stage "compute" when tensors are computed, in images.
            cancel: ends the search between batches of computed tensors.
            **choices: fields of :class:`retrieval.settings.SearchSettings`.

        Raises:
            UsageError: an unknown mode, or choices that contradict each other.
            IndexIncompatibleError: the index was not built for this mode, or the models found here are not its own.
            ImageError: the query can't be used as an image.
            CancelledError: ``cancel`` was requested; tensors computed until then are kept.
            MemoryFullError: memory ran out twice, the second time without candidates cached in memory.
        """
        return next(self.search_many([query], mode, on_progress, cancel=cancel, **choices))[1]

    def search_many(
        self,
        queries: Iterable[QueryInput],
        mode: str | None = None,
        on_progress: OnProgress = ignore_progress,
        on_unusable: OnUnusable | None = None,
        cancel: Cancellation | None = None,
        **choices: Unpack[SearchChoices],
    ) -> Iterator[tuple[Any, Results]]:
        """Yield every query with its nearest neighbours, in the order given; see :meth:`search`.

        Up to 16 queries are searched together: common candidates are read and computed once. Results are those of
        single searches.

        Args:
            queries: read 16 at a time, as results are taken.
            mode: one of :attr:`modes`.
            on_progress: as for a single search.
            on_unusable: called with each query that can't be used, which then has no results. None: the first of
                them raises its ImageError.
            cancel: as for a single search; also between groups of queries.
            **choices: as for a single search.
        """
        request = _Request(self._mode(mode), SearchSettings(**choices), on_progress, cancel)

        def searches() -> Iterator[tuple[Any, Results]]:
            remaining = iter(queries)
            while group := list(islice(remaining, QUERIES_AT_ONCE)):
                if cancel is not None:
                    cancel.check()
                read = list(self._read(group, on_unusable))
                if read:
                    search = partial(self._search, [query for _, query in read], request)
                    found = tried_twice(search, self._memory_cache.shrink, self._device)
                    yield from zip((given for given, _ in read), found, strict=True)

        return searches()

    def read_query(self, image: ImageInput) -> Query:
        """Read an image as this index's own images were read, for several searches.

        Raises:
            ImageError: the image can't be used.
        """
        return Query.read(image, self._context.models.rules)

    def score(self, first: QueryInput, second: QueryInput, mode: str | None = None) -> float:
        """Return the exact score of one pair; ``first`` is the query, ``second`` takes the gallery's role."""
        chosen, context = self._mode(mode), self._context
        pair: tuple[tuple[QueryInput, Role], ...] = ((first, "query"), (second, "gallery"))
        query, candidate = (
            context.tensors([context.models.prepare(self._query(image).image, Outputs((chosen,)))], role, chosen)
            for image, role in pair
        )
        how = Comparison(readout=context.models.readout(chosen))
        return bounded(float(aligned_attention_scores(query, candidate, how)[0]))

    def locate(self, text: str) -> Path | str:
        """Return the image that ``text`` means: a file's path, ``id:N``, or the end of one indexed item's path.

        Raises:
            UsageError: no item, or several; the message lists some.
        """
        return locate_image(self._reader, text)

    def paths(self) -> list[str]:
        """Return the indexed images' paths, in the order of their ids."""
        return self._reader.uris()

    def info(self) -> dict[str, Any]:
        """Return a description of the index, as JSON values."""
        return describe_index(self._reader, self._recipe)

    @property
    def _context(self) -> ScoringContext:
        """The loaded models; the first search waits for them."""
        with self._loading:
            if self._loaded is None:
                cache = self._tensor_cache
                self._loaded = load_context(self._reader, self._recipe, self._settings, cache, self._load)
            return self._loaded

    def _mode(self, mode: str | None) -> str:
        name = mode or self.modes[0]
        if name in self._recipe.targets:
            return name
        if name not in self._model.modes:
            raise unknown_mode(name, "this index", self.modes)
        raise lacks_modes(self._reader, [name])

    def _query(self, query: QueryInput) -> Query:
        return query if isinstance(query, Query) else self.read_query(query)

    def _read(
        self, queries: Sequence[QueryInput], on_unusable: OnUnusable | None
    ) -> Iterator[tuple[QueryInput, Query]]:
        for query in queries:
            try:
                yield query, self._query(query)
            except ImageError as error:
                if on_unusable is None:
                    raise
                on_unusable(query, error)

    def _search(self, queries: Sequence[Query], request: _Request) -> list[Results]:
        """Search for some queries at once; the time that they spend together is shared out evenly."""
        context, mode, timing = self._context, request.mode, SharedTiming(len(queries))
        with timing.of("embed"):
            outputs = Outputs((mode,) if request.settings.rerank else (), tuple(context.models.embedders))
            inputs = [context.models.prepare(query.image, outputs) for query in queries]
            vectors = context.encode(inputs, "query", Outputs(encoders=outputs.encoders)).vectors
        with timing.of("coarse"):
            candidates = [self._candidates(n, query, vectors, request) for n, query in enumerate(queries)]
        scored: Sequence[CandidateScores | None] = [None] * len(queries)
        if request.settings.rerank:
            scored = self._rerank(inputs, [each.rows for each in candidates], request, timing)
        found = zip(queries, candidates, scored, strict=True)
        return [self._results(query, each, scores, request, timing.ms) for query, each, scores in found]

    def _candidates(self, number: int, query: Query, vectors: Vectors, request: _Request) -> Candidates:
        wanted, own = request.settings, {name: found[number : number + 1] for name, found in vectors.items()}
        copies = self._reader.find("sha256", query.sha256) if wanted.exclude_query and query.sha256 else []
        return self._generator.generate(own, request.mode, wanted, copies)

    def _rerank(
        self, inputs: Sequence[ModelInputs], rows: Sequence[NDArray[np.int64]], request: _Request, timing: SharedTiming
    ) -> list[CandidateScores]:
        """Score each query's rows exactly; they are read while the queries' tensors are computed."""
        context, mode = self._context, request.mode
        cache = self._mode_cache(request)
        candidates = CandidateTensors.begin(context, mode, rows, cache, request.on_progress, request.cancel)
        with timing.of("embed"):
            tensors = context.tensors(inputs, "query", mode)
        how = Comparison(request.settings.similarity, context.models.readout(mode))
        return candidates.score([tensors[n : n + 1] for n in range(len(inputs))], how)

    def _mode_cache(self, request: _Request) -> ModeCache | None:
        """Return the candidates in memory; None for an exhaustive search, which would drive out those in use."""
        if request.settings.exhaustive or not self._memory_cache.budget:
            return None
        hidden = codec_of(self._recipe.settings).hidden
        # Modes project shared layer inputs each by itself; shared Q, K and V are the same candidates.
        name = request.mode if hidden else self._recipe.tensors[request.mode]
        return self._memory_cache.of_mode(name, cache_dtype(self._device, hidden))

    def _results(
        self,
        query: Query,
        candidates: Candidates,
        scored: CandidateScores | None,
        request: _Request,
        timing_ms: Mapping[str, float],
    ) -> Results:
        warning, without_vector = self._model.warnings.get(request.mode), self._generator.without_vector(request.mode)
        notes = search_notes(self._reader.layout.root, request.mode, scored, without_vector)
        return Results(
            results=rank_candidates(self._reader, candidates, scored, request.settings),
            query=query.about(),
            mode=request.mode,
            index=about_index(self._reader, self._recipe),
            timing_ms={**timing_ms, **({} if scored is None else scored.timing_ms)},
            notes=(*([Note("model", warning)] if warning else []), *notes),
            **({} if scored is None else scored.counts),
        )
