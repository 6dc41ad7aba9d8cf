"""The engine: open an index, search it for neighbours.

A search encodes the query, generates candidates from pooled vectors, and orders them by the exact DiffSim score of
their tensors. An engine sees the generation of the index that it opened, and is safe in many threads.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from index_store.lookup import locate_image
from index_store.reader import IndexReader
from index_store.remote.pull import existing_root
from index_store.tensors.cache import TensorCache
from retrieval.devices.selection import choose_device
from retrieval.encoding.loaded_models import LoadModels, load_models
from retrieval.encoding.recipe import lacks_modes, stored_recipe
from retrieval.errors import ImageError, UsageError
from retrieval.models.modes import Outputs
from retrieval.models.registry import describe_extractor, unknown_mode
from retrieval.progress import Cancellation, OnProgress, ignore_progress
from retrieval.scoring.aas import Comparison, aligned_attention_scores, bounded
from retrieval.search.answering import Answerer, Request
from retrieval.search.browsing.catalogue import Catalogue
from retrieval.search.filters.filter import Filter
from retrieval.search.filters.matching import FilterRows
from retrieval.search.index_info import describe_index
from retrieval.search.queries.picture import Picture
from retrieval.search.queries.query import Query, QueryInput, as_query
from retrieval.search.regions.region_views import with_subjects
from retrieval.search.results import Results
from retrieval.search.scoring_context import ScoringContext, load_context
from retrieval.search.tensors.index_data import IndexData
from retrieval.search.text.answering import TextAnswerer
from retrieval.settings import CORRESPONDENCES, EngineSettings, SearchChoices, SearchSettings
from retrieval.types import Role

if TYPE_CHECKING:
    from retrieval.search.explaining.explainer import CandidateInput, Explainer
    from retrieval.search.explaining.explanation import BoardExplanation, ImageExplanation

logger = logging.getLogger(__name__)

QUERIES_AT_ONCE = 16  # they share the reading and computing of common candidates

OnUnusable = Callable[[Any, ImageError], None]
"""Called with a query that can't be used, as it was given, and the reason."""


class Engine:
    """Search one index; make one with :meth:`open`."""

    def __init__(
        self,
        reader: IndexReader,
        settings: EngineSettings,
        load: LoadModels | None = None,
        data: IndexData | None = None,
    ) -> None:
        """Take an index; the first search calls ``load``. ``data`` finds and scores candidates; None: this process."""
        self._reader, self._settings = reader, settings
        self._load = load_models if load is None else load
        self._recipe = stored_recipe(reader, reader.layout.root)
        self._filter_rows = FilterRows(reader)
        self._tensor_cache = TensorCache(reader.layout, settings.max_cache)
        device = choose_device(settings.device)
        data = data or IndexData.here(reader, self._recipe, device, settings.memory)
        self._answerer = Answerer(reader, self._recipe, device, data)
        self._text = TextAnswerer(reader, self._recipe, settings, self._answerer)
        self._loaded: ScoringContext | None = None
        self._loading = threading.Lock()

    @classmethod
    def open(
        cls,
        index: str | Path,
        settings: EngineSettings | None = None,
        load: LoadModels | None = None,
        known: "Engine | None" = None,
    ) -> "Engine":
        """Open an index.

        Args:
            index: a folder or an ``s3://`` URL.
            settings: the device, folders of weights, and budgets of the caches.
            load: loads the index's models at the first search; None: :func:`load_models`.
            known: has the same index open; what it has read is not read again, so a new generation opens sooner.

        Raises:
            IndexNotFoundError, IndexCorruptError, IndexIncompatibleError: see :mod:`index_store.errors`.
        """
        reader = IndexReader(existing_root(index), known=known._reader if known else None)
        logger.info("opened %s: %d items", index, len(reader))
        return cls(reader, settings or EngineSettings(), load)

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that the index was built for, its default first."""
        return tuple(self._recipe.targets)

    def load(self) -> None:
        """Load the models and vectors now, which the first search would do; errors as in :meth:`search`."""
        _ = self._context
        self._answerer.generator.load()

    @property
    def runs_side_by_side(self) -> bool:
        """Whether searches in several threads gain from one core each, rather than all cores for one search."""
        return self._context.models.run_side_by_side()

    @property
    def catalogue(self) -> Catalogue:
        """The items, to browse them."""
        return Catalogue(self._reader, self._recipe, self._answerer.generator)

    def search(
        self,
        query: QueryInput,
        mode: str | None = None,
        on_progress: OnProgress = ignore_progress,
        cancel: Cancellation | None = None,
        where: Filter | None = None,
        **choices: Unpack[SearchChoices],
    ) -> Results:
        """Return the nearest neighbours of ``query``.

        Candidates without tensors are computed; one whose file is gone or has changed is left out, and a note says so.

        Args:
            query: see :data:`retrieval.search.queries.query.QueryInput`; for an item of the index, give its path.
            mode: one of :attr:`modes`; the first of them by default.
            on_progress: hears of the stage "compute" when tensors are computed, in images.
            cancel: ends the search between batches of computed tensors.
            where: only images that pass this filter are candidates; the coarse stage then compares all of them.
            **choices: fields of :class:`retrieval.settings.SearchSettings`.

        Raises:
            UsageError: an unknown mode, choices that contradict each other, a region outside its image, a filter that
                doesn't fit the index, or percentiles are needed and there are none.
            IndexIncompatibleError: the index was not built for this mode, or the models found here are not its own.
            ImageError: the query can't be used as an image.
            CancelledError: ``cancel`` was requested; tensors computed until then are kept.
            MemoryFullError: memory ran out twice, the second time without candidates cached in memory.
        """
        return next(self.search_many([query], mode, on_progress, cancel=cancel, where=where, **choices))[1]

    def search_many(
        self,
        queries: Iterable[QueryInput],
        mode: str | None = None,
        on_progress: OnProgress = ignore_progress,
        on_unusable: OnUnusable | None = None,
        cancel: Cancellation | None = None,
        where: Filter | None = None,
        **choices: Unpack[SearchChoices],
    ) -> Iterator[tuple[Any, Results]]:
        """Yield every query with its nearest neighbours, in the order given; see :meth:`search`.

        Up to 16 queries share the reading and computing of common candidates. Results are those of single searches.

        Args:
            queries: read 16 at a time, as results are taken.
            mode: one of :attr:`modes`.
            on_progress: as for a single search.
            on_unusable: called with each query that can't be used, which then has no results. None: the first of
                them raises its ImageError.
            cancel: as for a single search; also between groups of queries.
            where: as for a single search.
            **choices: as for a single search.
        """
        settings = SearchSettings(**choices)
        request = Request(self._mode(mode), settings, on_progress, cancel)
        if request.mode in {self._mode(other) for other in settings.mode_weights}:
            raise UsageError(f"{request.mode} is the mode of the search: weigh other modes beside it")
        if where is not None:
            allowed = self._filter_rows.of(where)
            request = replace(request, allowed=allowed, filter={**where.about(), "images": len(allowed)})

        def searches() -> Iterator[tuple[Any, Results]]:
            remaining = iter(queries)
            while group := list(islice(remaining, QUERIES_AT_ONCE)):
                if cancel is not None:
                    cancel.check()
                if read := list(self._read(group, on_unusable)):
                    found = self._text.answer(lambda: self._context, [query for _, query in read], request)
                    yield from zip((given for given, _ in read), found, strict=True)

        return searches()

    def read_query(self, query: QueryInput) -> Query:
        """Read a question's images as this index's own were read; ImageError for one that can't be used."""
        asked = as_query(query)
        return asked.read(self._context.models.rules) if asked.images else asked

    def score(self, first: QueryInput, second: QueryInput, mode: str | None = None) -> float:
        """Return the exact score of one pair; ``first`` is the query, ``second`` takes the gallery's role."""
        chosen, context = self._mode(mode), self._context
        pair: tuple[tuple[QueryInput, Role], ...] = ((first, "query"), (second, "gallery"))
        query, candidate = (
            context.tensors(context.prepare([self._picture(image).image], Outputs((chosen,))), role, chosen)
            for image, role in pair
        )
        how = Comparison(readout=context.models.readout(chosen))
        return bounded(float(aligned_attention_scores(query, candidate, how)[0]))

    def percentile(self, mode: str | None, score: float) -> float:
        """Return how many of 100 random pairs of the index score less; UsageError if there are no percentiles."""
        return float(self._answerer.percentiles.required(self._mode(mode)).percentiles(score))

    def explain(self, query: QueryInput, candidate: "CandidateInput", mode: str | None = None) -> "ImageExplanation":
        """Explain the score that a search gives ``candidate``; see :meth:`explain_all`."""
        return next(self.explain_all(query, [candidate], mode))

    def explain_all(
        self,
        query: QueryInput,
        candidates: "Iterable[CandidateInput]",
        mode: str | None = None,
        correspondences: int = CORRESPONDENCES,
    ) -> "Iterator[ImageExplanation]":
        """Yield an explanation of every candidate's cosine score; the query's tensors are computed once.

        Args:
            query: of one image or its region; see :meth:`explain_board` for several.
            candidates: results, ids, indexed paths, or other images, which take the gallery's role.
            mode: one of :attr:`modes`; the first of them by default.
            correspondences: how many pairs of cells to name, the strongest.

        Raises:
            UsageError, ImageError: several images, an unknown mode or candidate, or one that can't be used.
        """
        return map(partial(self._explainer(query, mode).explain, correspondences=correspondences), candidates)

    def explain_board(
        self, query: QueryInput, candidates: "Iterable[CandidateInput]", mode: str | None = None
    ) -> "Iterator[BoardExplanation]":
        """Yield an explanation of every candidate's score by a question of several images; see :meth:`explain_all`."""
        return map(partial(self._explainer(query, mode).explain_board, correspondences=CORRESPONDENCES), candidates)

    def _explainer(self, query: QueryInput, mode: str | None) -> "Explainer":
        from retrieval.search.explaining.explainer import Explainer  # searches do without it

        name = self._mode(mode)
        return Explainer(self._context, name, with_subjects(self._context, name, self.read_query(query)))

    def locate(self, text: str) -> Path | str:
        """Return the image of a path, ``id:N`` or the end of an item's path; a UsageError lists some if several fit."""
        return locate_image(self._reader, text)

    def paths(self) -> list[str]:
        """Return the indexed images' paths, in the order of their ids."""
        return self._reader.uris()

    def items(self) -> Iterator[tuple[int, str]]:
        """Yield id and path of every indexed image, in the order of the ids; they are read as they are taken."""
        return self.catalogue.paths()

    def info(self) -> dict[str, Any]:
        """Return a description of the index, as JSON values."""
        return describe_index(self._reader, self._recipe)

    @property
    def _context(self) -> ScoringContext:
        with self._loading:
            if self._loaded is None:
                self._loaded = load_context(self._reader, self._recipe, self._settings, self._tensor_cache, self._load)
            return self._loaded

    def _mode(self, mode: str | None) -> str:
        name = mode or self.modes[0]
        if name in self._recipe.targets:
            return name
        if name not in describe_extractor(self._recipe.settings.model).modes:
            raise unknown_mode(name, "this index", self.modes)
        raise lacks_modes(self._reader, [name])

    def _picture(self, given: QueryInput) -> Picture:
        query = self.read_query(given)
        if not (query.is_plain and query.is_whole):
            raise UsageError("a pair has one whole image on each side: ask for each image of a board by itself")
        return query.pictures[0]

    def _read(
        self, queries: Sequence[QueryInput], on_unusable: OnUnusable | None
    ) -> Iterator[tuple[QueryInput, Query]]:
        for query in queries:
            try:
                yield query, self.read_query(query)
            except ImageError as error:
                if on_unusable is None:
                    raise
                on_unusable(query, error)
