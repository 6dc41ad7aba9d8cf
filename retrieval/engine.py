"""The engine: open an index, ask it for neighbours.

A search encodes the query once, takes candidates from the coarse stage, reads their stored Q/K/V, computes those that
are lacking, and orders them by the exact DiffSim score. An engine sees the generation it opened, whatever writers do,
and is safe in many threads.
"""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from index_store.cache import TensorCache
from index_store.codecs import find_codec
from index_store.pull import existing_root
from index_store.reader import IndexReader
from retrieval.aas import QKV, aligned_attention_scores, higher_is_closer
from retrieval.backbones import describe_extractor
from retrieval.candidates import CandidatePicker, Ranking
from retrieval.device import choose_device
from retrieval.errors import UsageError
from retrieval.hot import HotRows, HotTier
from retrieval.images import decode_bytes, from_array, read_image, to_rgb
from retrieval.lookup import locate_image
from retrieval.models import Encoded, Models, Prepared, Stored, load_models
from retrieval.modes import Need
from retrieval.on_demand import CandidateScorer, Machinery, OnComputed, Scored, search_notes
from retrieval.overview import about_index, describe_index
from retrieval.pace import batch_size, workers
from retrieval.plan import check_fingerprint, lacks_modes, stored_recipe
from retrieval.rerank import Restore, closest_first
from retrieval.results import Result, Results
from retrieval.settings import BuildSettings, EngineSettings, ModelSettings, SearchChoices, SearchSettings
from retrieval.stored import restorer
from retrieval.vocabulary import Role

ImageInput = str | Path | bytes | Image.Image | NDArray[Any]
"""A path, a file's bytes, a PIL image, or a uint8 array ``[H, W, 3]``."""


class Engine:
    """Search one index; make one with :meth:`open`."""

    def __init__(self, reader: IndexReader, settings: EngineSettings) -> None:
        """Take an opened index; models are loaded at the first search."""
        self._reader = reader
        self._settings = settings
        self._recipe = stored_recipe(reader, reader.layout.root)
        self._picker = CandidatePicker(reader, describe_extractor(self._recipe.settings.model).modes)
        self._cache = TensorCache(reader.layout, settings.max_cache)
        self._hot = HotTier(settings.memory)
        self._restorers: dict[str, Restore] = {}
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
        wanted = SearchSettings(**choices)
        chosen = self._mode(mode)
        start = perf_counter()
        image, about = self._load_image(query)
        need = Need((chosen,) if wanted.rerank else (), tuple(self._models.embedders))
        prepared = self._models.prepare(image, need)
        vectors = self._encode(prepared, "query", Need(encoders=need.encoders)).vectors
        timing = {"embed": 1e3 * (perf_counter() - start)}
        start = perf_counter()
        ranking = self._picker.pick(vectors, chosen, wanted)
        timing["coarse"] = 1e3 * (perf_counter() - start)
        scored = None
        if wanted.rerank:
            scorer = self._scorer(chosen, wanted)
            scorer.begin(ranking.rows)  # reads while the query's tensors are computed
            start = perf_counter()
            tensors = self._tensors(prepared, "query", chosen)
            timing["embed"] += 1e3 * (perf_counter() - start)
            scored = scorer.score(tensors, ranking.rows, on_computed)
            timing |= scored.timing_ms
        return Results(
            results=self._results(ranking, scored, wanted, about.get("sha256", "")),
            query=about,
            mode=chosen,
            index=about_index(self._reader, self._recipe),
            timing_ms=timing,
            notes=self._notes(chosen, scored),
            computed=0 if scored is None else scored.computed,
            cached=0 if scored is None else scored.cached,
            left_out=0 if scored is None else scored.left_out,
        )

    def _scorer(self, mode: str, wanted: SearchSettings) -> CandidateScorer:
        run = BuildSettings(device=self._settings.device)
        size = batch_size(self._recipe.settings.model, run)
        hot = None if wanted.exhaustive else self._hot_rows(mode)  # all images would drive out those in use
        machinery = Machinery(self._models, self._encode_candidates, self._restore(mode), hot, size, workers(run))
        readout = self._models.readout(mode)
        return CandidateScorer(self._reader, self._cache, machinery, mode, wanted.similarity, readout)

    def _hot_rows(self, mode: str) -> HotRows | None:
        if not self._settings.memory:
            return None
        # What a codec makes of layer inputs is more than float16 can say.
        hidden = find_codec(self._recipe.settings.codec).hidden
        return HotRows(self._hot, mode, torch.float32 if hidden else torch.float16)

    def _encode_candidates(self, batch: Sequence[Prepared], need: Need) -> Stored:
        with self._encoding:
            return self._models.encode_stored(batch, need)

    def score(self, first: ImageInput, second: ImageInput, mode: str | None = None) -> float:
        """Return the exact score of one pair; ``first`` is the query, ``second`` takes the gallery's role."""
        chosen = self._mode(mode)
        pair: tuple[tuple[ImageInput, Role], ...] = ((first, "query"), (second, "gallery"))
        query, candidate = (
            self._tensors(self._models.prepare(self._load_image(image)[0], Need((chosen,))), role, chosen)
            for image, role in pair
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

    def _load_image(self, query: ImageInput) -> tuple[Image.Image, dict[str, Any]]:
        rules = self._models.rules
        if isinstance(query, bytes):
            image, (width, height) = decode_bytes(query, "the query", rules)
            digest = hashlib.sha256(query).hexdigest()
            return image, {"path": None, "width": width, "height": height, "sha256": digest}
        if isinstance(query, str | Path):
            image, facts = read_image(Path(query), rules)
            size = {"width": facts.width, "height": facts.height}
            return image, {"path": str(Path(query).absolute()), **size, "sha256": facts.sha256}
        picture = query if isinstance(query, Image.Image) else from_array(query, "the query")
        image = to_rgb(picture, rules.alpha)
        return image, {"path": None, "width": image.width, "height": image.height}

    def _encode(self, prepared: Prepared, role: Role, need: Need) -> Encoded:
        with self._encoding:  # layers are read by hooks on the one network: one pass at a time
            return self._models.encode([prepared], role, need)

    def _tensors(self, prepared: Prepared, role: Role, mode: str) -> QKV:
        return self._encode(prepared, role, Need((mode,))).tensors[mode].to(choose_device(self._settings.device))

    @cached_property
    def _models(self) -> Models:
        with self._loading:
            if "_models" in self.__dict__:
                loaded: Models = self.__dict__["_models"]
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
        on_cpu = choose_device(here.device).type == "cpu"
        folders = {name: here.encoders.get(name, folder) for name, folder in (stored.encoders or {}).items()}
        return replace(
            stored,
            weights=here.weights or stored.weights,
            dtype="float32" if on_cpu and stored.dtype == "float16" else stored.dtype,
            encoders=folders,
        )

    def _restore(self, mode: str) -> Restore:
        with self._loading:
            if mode not in self._restorers:
                device = choose_device(self._settings.device)
                self._restorers[mode] = restorer(self._reader, find_codec(self._recipe.settings.codec), mode, device)
            return self._restorers[mode]

    def _results(
        self, ranking: Ranking, scored: Scored | None, wanted: SearchSettings, query_sha256: str
    ) -> tuple[Result, ...]:
        rows = ranking.rows
        order = np.arange(len(rows))
        scores = None if scored is None else scored.scores
        if scored is not None:
            order = closest_first(scored.scores, self._reader.ids[rows], wanted.similarity)
            order = order[scored.is_scored[order]]
        keys = ranking.similarities if scores is None else scores
        if wanted.min_score is not None and keys is not None:
            closer = higher_is_closer(wanted.similarity) or scores is None
            order = order[keys[order] >= wanted.min_score] if closer else order[keys[order] <= wanted.min_score]
        spare = 16 if wanted.exclude_query else 0  # copies of the query's file that may have to be left out
        found: list[Result] = []
        items = self._reader.items(rows[order[: wanted.k + spare]])
        for position, item in zip(order.tolist(), items, strict=False):
            if len(found) == wanted.k:
                break
            if wanted.exclude_query and item.sha256 == query_sha256:
                continue
            found.append(
                Result(
                    rank=len(found) + 1,
                    id=item.id,
                    path=item.uri,
                    score=None if scores is None else float(scores[position]),
                    coarse_score=_known(ranking.similarities, position),
                    coarse_rank=None if wanted.exhaustive or ranking.similarities is None else position + 1,
                    sha256=item.sha256,
                )
            )
        return tuple(found)

    def _notes(self, mode: str, scored: Scored | None) -> tuple[str, ...]:
        warning = describe_extractor(self._recipe.settings.model).warnings.get(mode)
        root = self._reader.layout.root
        return (*((warning,) if warning else ()), *search_notes(root, mode, scored, self._picker.without_vector(mode)))


def _known(similarities: NDArray[np.float32] | None, position: int) -> float | None:
    return None if similarities is None or np.isnan(similarities[position]) else float(similarities[position])
