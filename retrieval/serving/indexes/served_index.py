"""An index that a server holds open; a new generation takes the place of the old one without a restart."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from retrieval.encoding.loaded_models import LoadModels, LoadOnce, load_models
from retrieval.errors import DiffSimError, IndexStoreError
from retrieval.search.browsing.catalogue import newest_generation
from retrieval.search.engine import Engine
from retrieval.search.replicas.replicated_index import on_ray
from retrieval.settings import EngineSettings, ReplicaSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ServedIndex:
    """One index under a name; safe in many threads."""

    def __init__(
        self,
        name: str,
        place: str | Path,
        settings: EngineSettings,
        load: LoadModels | None = None,
        replicas: ReplicaSettings | None = None,
    ) -> None:
        """Open the index at ``place``, on ``replicas`` where there are some; errors as in :meth:`Engine.open`."""
        self.name, self.place = name, place
        load = load or load_models
        self._replicated = None if replicas is None else on_ray(place, settings, replicas, load)
        self._settings, self._load = settings, LoadOnce(load)
        self._engine = self._open(None)
        self._failure: DiffSimError | None = None
        self._refreshing = threading.Lock()
        self._kept: dict[Any, tuple[Engine, Any]] = {}

    def _open(self, known: Engine | None) -> Engine:
        if self._replicated is not None:
            return self._replicated.open(self.place, self._settings, self._load)
        return Engine.open(self.place, self._settings, self._load, known)

    @property
    def engine(self) -> Engine:
        """The newest generation that could be opened."""
        return self._engine

    @property
    def replicas(self) -> int | None:
        """How many replicas answer now; None: this process searches."""
        return None if self._replicated is None else self._replicated.fleet.alive

    def close(self) -> None:
        """End the replicas, if there are any."""
        if self._replicated is not None:
            self._replicated.close()

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
                newer = self._open(self._engine)
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
