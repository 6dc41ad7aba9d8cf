"""An index that a server holds open; a new generation takes the place of the old one without a restart."""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from retrieval.encoding.loaded_models import LoadedModels, LoadModels, load_models
from retrieval.errors import DiffSimError, IndexStoreError
from retrieval.models.modes import Target
from retrieval.search.browsing.catalogue import newest_generation
from retrieval.search.engine import Engine
from retrieval.settings import EngineSettings, ModelSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ServedIndex:
    """One index under a name; safe in many threads, except that one thread at a time may compute."""

    def __init__(self, name: str, place: str | Path, settings: EngineSettings, load: LoadModels | None = None) -> None:
        """Open the index at ``place``; errors as in :meth:`Engine.open`."""
        self.name, self.place = name, place
        self._open = partial(Engine.open, place, settings, LoadOnce(load or load_models))
        self._engine = self._open()
        self._failure: DiffSimError | None = None
        self._refreshing = threading.Lock()
        self._kept: dict[Any, tuple[Engine, Any]] = {}

    @property
    def engine(self) -> Engine:
        """The newest generation that could be opened."""
        return self._engine

    @property
    def failure(self) -> DiffSimError | None:
        """Why the newest generation could not be looked for or opened; None: it is the one that is served."""
        return self._failure

    def use(self, work: Callable[[Engine], T]) -> T:
        """Do some work; if the files of an old generation are gone, do it again on the newest one."""
        engine = self._engine
        try:
            return work(engine)
        except IndexStoreError:
            self.refresh()
            if self._engine is engine:
                raise
            return work(self._engine)

    def refresh(self) -> bool:
        """Open the newest generation if it is not the one that is served; say whether it was opened now.

        An index that can't be read at the moment stays served as it was, and :attr:`failure` says why.
        """
        with self._refreshing:
            try:
                if newest_generation(self.place) == self._engine.catalogue.generation:
                    self._failure = None
                    return False
                newer = self._open()
                newer.load()
            except DiffSimError as error:
                if self._failure is None:
                    logger.warning(
                        "%s: generation %d stays served: %s", self.name, self._engine.catalogue.generation, error
                    )
                self._failure = error
                return False
            logger.info(
                "%s: generation %d takes the place of %d",
                self.name,
                newer.catalogue.generation,
                self._engine.catalogue.generation,
            )
            self._engine, self._failure = newer, None
            self._kept.clear()
            return True

    def info(self) -> dict[str, Any]:
        """Return the index's description, made once for each generation."""
        return self._once("info", lambda engine: engine.info())

    def map(self, mode: str, make: Callable[[Engine], bytes]) -> bytes:
        """Return a map of all items, made once for each generation and mode."""
        return self._once(("map", mode), make)

    def _once(self, key: Any, make: Callable[[Engine], T]) -> T:
        engine = self._engine
        held = self._kept.get(key)
        if held is None or held[0] is not engine:
            held = (engine, self.use(make))
            self._kept[key] = held
        value: T = held[1]
        return value


class LoadOnce:
    """Loads the models of one index once, for all generations with the same settings."""

    def __init__(self, load: LoadModels) -> None:
        self._load = load
        self._loaded: tuple[Any, LoadedModels] | None = None
        self._loading = threading.Lock()

    def __call__(
        self, settings: ModelSettings, targets: Mapping[str, Target], device: str, offline: bool
    ) -> LoadedModels:
        """Return the models as ``load`` does."""
        key = (settings, dict(targets), device, offline)
        with self._loading:
            if self._loaded is None or self._loaded[0] != key:
                self._loaded = (key, self._load(settings, targets, device, offline))
            return self._loaded[1]
