"""The engine: open an index, ask it for neighbours.

A search encodes the query once, takes candidates from the coarse stage, reads their cached Q/K/V and orders them by
the exact DiffSim score. An engine sees the generation it opened, whatever writers do, and is safe in many threads.
"""

import hashlib
import threading
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index_store.coarse import CoarseIndex
from index_store.codecs import find_codec
from index_store.grown import GrownIndex
from index_store.reader import IndexReader
from retrieval.aas import aligned_attention_scores, higher_is_closer
from retrieval.backbones import describe_extractor
from retrieval.coarse import fuse_rankings
from retrieval.device import choose_device
from retrieval.errors import IndexIncompatibleError, UsageError
from retrieval.images import decode_bytes, from_array, read_image, to_rgb
from retrieval.models import Encoded, Models, load_models
from retrieval.overview import about_index, describe_index
from retrieval.plan import check_fingerprint, stored_recipe
from retrieval.rerank import Restore, closest_first, score_rows
from retrieval.results import Result, Results
from retrieval.settings import EngineSettings, ModelSettings, SearchChoices, SearchSettings
from retrieval.stored import restorer

ImageInput = str | Path | bytes | Image.Image | NDArray[Any]
"""A path, a file's bytes, a PIL image, or a uint8 array ``[H, W, 3]``."""

ID_PREFIX = "id:"


@dataclass(frozen=True)
class _Ranking:
    """Candidates before the exact scores: rows, best first, with the coarse stage's word where there is one."""

    rows: NDArray[np.int64]
    similarities: NDArray[np.float32] | None


class Engine:
    """Search one index; make one with :meth:`open`."""

    def __init__(self, reader: IndexReader, settings: EngineSettings) -> None:
        """Take an opened index; models are loaded at the first search."""
        self._reader = reader
        self._settings = settings
        self._recipe = stored_recipe(reader, reader.layout.root)
        self._coarse: dict[str, CoarseIndex | GrownIndex] = {}
        self._restorers: dict[str, Restore] = {}
        self._loading, self._encoding = threading.RLock(), threading.Lock()

    @classmethod
    def open(cls, index: str | Path, settings: EngineSettings | None = None) -> "Engine":
        """Open the index at ``index``.

        Raises:
            IndexNotFoundError, IndexCorruptError, IndexIncompatibleError: see :mod:`index_store.errors`.
        """
        return cls(IndexReader(Path(index)), settings or EngineSettings())

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that the index was built for, its default first."""
        return tuple(self._recipe.targets)

    def search(self, query: ImageInput, mode: str | None = None, **choices: Unpack[SearchChoices]) -> Results:
        """Return the nearest neighbours of ``query``.

        Args:
            query: see :data:`ImageInput`. For an item of the index, give its path.
            mode: one of :attr:`modes`; the first of them by default.
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
        encoded = self._encode(image, "query", chosen)
        timing = {"embed": 1e3 * (perf_counter() - start)}
        start = perf_counter()
        ranking = self._candidates(encoded, chosen, wanted)
        timing["coarse"] = 1e3 * (perf_counter() - start)
        scores = None
        if wanted.rerank:
            tensors, rows = encoded.tensors[chosen], ranking.rows.tolist()
            readout, read = self._models.readout(chosen), partial(self._reader.attention, chosen)
            scored = score_rows(tensors, rows, read, wanted.similarity, readout, self._restore(chosen))
            scores, timing["read"], timing["rerank"] = scored.scores, scored.read_ms, scored.score_ms
        return Results(
            results=self._results(ranking, scores, wanted, about.get("sha256", "")),
            query=about,
            mode=chosen,
            index=about_index(self._reader, self._recipe),
            timing_ms=timing,
            notes=self._notes(chosen),
        )

    def score(self, first: ImageInput, second: ImageInput, mode: str | None = None) -> float:
        """Return the exact score of one pair; ``first`` is the query, ``second`` takes the gallery's role."""
        chosen = self._mode(mode)
        query, candidate = (
            self._encode(self._load_image(image)[0], role, chosen).tensors[chosen]
            for image, role in ((first, "query"), (second, "gallery"))
        )
        readout = self._models.readout(chosen)
        return float(aligned_attention_scores(query, candidate, readout=readout)[0])

    def locate(self, text: str) -> Path | str:
        """Return the image that ``text`` means: a file's path, ``id:N``, or the end of one indexed item's path.

        Raises:
            UsageError: nothing, or several items; the message lists some.
        """
        if Path(text).exists():
            return text
        if text.startswith(ID_PREFIX):
            number = text.removeprefix(ID_PREFIX)
            rows = self._reader.find("id", int(number)) if number.isdecimal() else []
        else:
            rows = self._reader.find("uri", text) or self._reader.find_suffix(text)
        if not rows:
            raise UsageError(f"query {text}: no such file, and no item of {self._reader.layout.root} has that name")
        if len(rows) > 1:
            some = ", ".join(f"{ID_PREFIX}{item.id} {item.uri}" for item in self._reader.items(rows[:3]))
            raise UsageError(f"query {text} fits {len(rows)} items of the index; name one of them: {some} ...")
        return Path(self._reader.items(rows)[0].uri)

    def info(self) -> dict[str, Any]:
        """Return what the index is, as JSON values."""
        return describe_index(self._reader, self._recipe)

    def _mode(self, mode: str | None) -> str:
        name = mode or self.modes[0]
        if name in self._recipe.targets:
            return name
        table = describe_extractor(self._recipe.settings.model).modes
        if name not in table:
            raise UsageError(f"unknown mode '{name}'; this index has: {', '.join(self.modes)}")
        root = self._reader.layout.root
        raise IndexIncompatibleError(
            f"{root} was built for {', '.join(self.modes)}, not for {name}; build one that has it: "
            f"diffsim-index build FOLDER --modes {','.join((*self.modes, name))} --index NEW.diffsim"
        )

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

    def _encode(self, image: Image.Image, role: Any, mode: str) -> Encoded:
        prepared = [self._models.prepare(image)]
        with self._encoding:  # layers are read by hooks on the one network: one pass at a time
            encoded = self._models.encode(prepared, role, [mode])
        return replace(encoded, tensors={mode: encoded.tensors[mode].to(choose_device(self._settings.device))})

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

    def _coarse_index(self, encoder: str) -> CoarseIndex | GrownIndex:
        with self._loading:
            if encoder not in self._coarse:
                self._coarse[encoder] = self._reader.coarse_index(encoder)
            return self._coarse[encoder]

    def _restore(self, mode: str) -> Restore:
        with self._loading:
            if mode not in self._restorers:
                device = choose_device(self._settings.device)
                self._restorers[mode] = restorer(self._reader, find_codec(self._recipe.settings.codec), mode, device)
            return self._restorers[mode]

    def _encoders(self, mode: str) -> tuple[str, ...]:
        """Return the encoders that pick a mode's candidates: the mode's own, else all that the index has."""
        has = self._reader.generation.encoders
        table = describe_extractor(self._recipe.settings.model).modes
        preferred = table[mode].encoders if mode in table else ()
        return tuple(name for name in preferred if name in has) or tuple(has)

    def _candidates(self, encoded: Encoded, mode: str, wanted: SearchSettings) -> _Ranking:
        encoders = self._encoders(mode)
        if not encoders and not wanted.rerank:
            raise UsageError(f"{self._reader.layout.root} has no coarse stage (it was built with --encoders none)")
        everything = np.arange(len(self._reader))
        if not len(everything) or not encoders:
            return _Ranking(everything, None)
        indexes = {name: self._coarse_index(name) for name in encoders}
        if wanted.exhaustive:
            rows = everything
        else:
            count = max(wanted.candidates, wanted.k)
            rankings = [index.search(encoded.vectors[name][0], count)[0] for name, index in indexes.items()]
            rows = fuse_rankings(rankings, count)
        cosines = [index.similarities(encoded.vectors[name][0], rows) for name, index in indexes.items()]
        return _Ranking(rows, np.mean(cosines, axis=0, dtype=np.float32))

    def _results(
        self, ranking: _Ranking, scores: NDArray[np.float32] | None, wanted: SearchSettings, query_sha256: str
    ) -> tuple[Result, ...]:
        rows = ranking.rows
        order = np.arange(len(rows))
        if scores is not None:
            order = closest_first(scores, self._reader.ids[rows], wanted.similarity)
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
                    coarse_score=None if ranking.similarities is None else float(ranking.similarities[position]),
                    coarse_rank=None if wanted.exhaustive or ranking.similarities is None else position + 1,
                    sha256=item.sha256,
                )
            )
        return tuple(found)

    def _notes(self, mode: str) -> tuple[str, ...]:
        warning = describe_extractor(self._recipe.settings.model).warnings.get(mode)
        return (warning,) if warning else ()
