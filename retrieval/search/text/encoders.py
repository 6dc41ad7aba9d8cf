"""The encoders of an index that have text, and the images that are nearest to one."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.devices.memory import raising_memory_full
from retrieval.devices.selection import choose_device
from retrieval.encoding.recipe import Recipe
from retrieval.errors import UsageError
from retrieval.models.registry import describe_embedder
from retrieval.models.vit.text_families import TEXT_FAMILIES, WITH_TEXT
from retrieval.search.candidates import CandidateGenerator, CandidateQuestion, Candidates
from retrieval.settings import EngineSettings, SearchSettings

if TYPE_CHECKING:
    from retrieval.models.vit.text import TextTower


def encoders_with_text(reader: IndexReader) -> tuple[str, ...]:
    """Return the encoders that an index has vectors of, and that read texts."""
    stored = reader.generation.fingerprint.get("encoders", {})
    return tuple(name for name in reader.generation.encoders if stored.get(name, {}).get("name") in TEXT_FAMILIES)


class TextRanker:
    """Ranks the images of one opened index by texts; safe in many threads."""

    def __init__(
        self, reader: IndexReader, recipe: Recipe, settings: EngineSettings, generator: CandidateGenerator
    ) -> None:
        """Take an index, and the generator that reads its vectors; the first text loads the text towers."""
        self._reader, self._recipe, self._settings, self._generator = reader, recipe, settings, generator
        self._loaded: dict[str, TextTower] = {}
        self._loading = threading.Lock()

    def encoders(self) -> tuple[str, ...]:
        """Return the encoders that have text and vectors.

        Raises:
            UsageError: there are none; the message names those that could be added.
        """
        found = encoders_with_text(self._reader)
        if not found:
            stored = self._reader.generation.fingerprint.get("encoders", {})
            root, has = self._reader.layout.root, ", ".join(stored) or "none"
            places = " ".join(self._reader.sources.places) or "SOURCE"
            raise UsageError(
                f"no encoder of {root} has text: it has {has}, and AAS compares images alone. Encoders with text are "
                f"{' and '.join(WITH_TEXT)}, and CLIP, MetaCLIP 2, SigLIP or SigLIP 2 of any repository",
                advice="add-text-encoder",
                sources=places,
                encoder=WITH_TEXT[0],
                index=root,
            )
        return found

    def rank(
        self, texts: Sequence[str], mode: str, wanted: SearchSettings, allowed: NDArray[np.int64] | None
    ) -> Candidates:
        """Return the images nearest to ``texts`` together, by the mean of their vectors.

        Args:
            texts: one or more.
            mode: of the search.
            wanted: its ``candidates`` say how many images.
            allowed: rows that pass a filter, ascending; None: all.
        """
        names = self.encoders()
        vectors = {name: self._vector(name, texts) for name in names}
        wanted = replace(wanted, exhaustive=False, rerank=False)
        return self._generator.generate([CandidateQuestion(vectors, wanted, (), allowed)], mode, names)[0]

    def held(self, allowed: NDArray[np.int64] | None) -> int:
        """Return how many of the rows have a vector of every encoder with text."""
        has = np.all([self._reader.has_vector(name) for name in self.encoders()], axis=0)
        return int((has if allowed is None else has[allowed]).sum())

    def _vector(self, name: str, texts: Sequence[str]) -> NDArray[np.float32]:
        device = choose_device(self._settings.device)
        with raising_memory_full(len(texts), device):
            vectors = self._encoder(name).embed(texts)
        mean = vectors.mean(axis=0, dtype=np.float64)
        unit: NDArray[np.float32] = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)[None]
        return unit

    def _encoder(self, name: str) -> "TextTower":
        from retrieval.models.vit.text import load_text  # imports transformers, which other searches do without

        with self._loading:
            if name not in self._loaded:
                stored = self._reader.generation.fingerprint["encoders"][name]
                folder = self._settings.encoders.get(name) or (self._recipe.settings.encoders or {}).get(name)
                self._loaded[name] = load_text(
                    describe_embedder(name),
                    TEXT_FAMILIES[stored["name"]],
                    None if folder is None else Path(folder),
                    choose_device(self._settings.device),
                    self._settings.offline,
                    stored["weights"],
                )
            return self._loaded[name]
