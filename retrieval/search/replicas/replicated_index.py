"""Open an index over replicas: an engine that encodes questions here, and has them answered there."""

import logging
import threading
from pathlib import Path

from index_store.reader import IndexReader
from index_store.remote.mirror import index_name
from index_store.remote.pull import existing_root
from retrieval.encoding.loaded_models import LoadModels
from retrieval.search.engine import Engine
from retrieval.search.replicas.fleet import Fleet
from retrieval.search.replicas.ownership import Ownership
from retrieval.search.replicas.plan import ReplicaPlan
from retrieval.search.replicas.ray_replicas import RayTransport
from retrieval.search.replicas.replica import ReplicaSpec
from retrieval.search.replicas.replica_scorer import ReplicaScorer
from retrieval.search.replicas.replica_vectors import ReplicaVectors
from retrieval.search.replicas.roster import Abouts
from retrieval.search.replicas.transport import ReplicaTransport
from retrieval.search.tensors.index_data import IndexData
from retrieval.settings import EngineSettings, ReplicaSettings

logger = logging.getLogger(__name__)


class ReplicatedIndex:
    """The replicas of one index; :meth:`open` returns an engine over its newest generation."""

    def __init__(self, transport: ReplicaTransport, settings: ReplicaSettings) -> None:
        """Start the replicas, all of which ``transport`` opens for one index; errors as in :class:`Fleet`."""
        self._replication = settings.replication
        self.fleet = Fleet(transport, settings.count, settings.patience_seconds, settings.answer_seconds)
        self._opening = threading.Lock()

    def open(self, index: str | Path, settings: EngineSettings, load: LoadModels | None = None) -> Engine:
        """Open the newest generation on all replicas, and return an engine that searches it.

        Segments stay on the replicas that hold them in the generation before, unless that would be too uneven.

        Raises:
            IndexNotFoundError, IndexCorruptError, IndexIncompatibleError: see :meth:`Engine.open`.
            ReplicaLostError: nobody could open some segments.
        """
        reader = IndexReader(existing_root(index))
        number = reader.generation.number
        with self._opening:
            plan = self.fleet.plan_of(number)
            if plan is None:
                plan = ReplicaPlan.make(_sizes(reader), len(self.fleet), self._replication, self.fleet.newest_plan())
            abouts = self.fleet.open(number, plan)
        _leave_out(reader, abouts)
        owners = Ownership(reader, plan.partitions)
        data = IndexData(ReplicaVectors(self.fleet, number, owners, abouts), ReplicaScorer(self.fleet, number, owners))
        logger.info("opened generation %d of %s on %d replicas", number, index, len(self.fleet))
        return Engine(reader, settings, load, data)

    def close(self) -> None:
        """End the replicas."""
        self.fleet.close()


def on_ray(index: str | Path, engine: EngineSettings, settings: ReplicaSettings, load: LoadModels) -> ReplicatedIndex:
    """Start the replicas of an index on a Ray cluster.

    Raises:
        DependencyError, DiffSimError: see :func:`retrieval.devices.ray_cluster.connect`.
        IndexNotFoundError, IndexCorruptError: there is no usable index.
        ReplicaLostError: a replica ended before it answered.
    """
    threads = max(1, int(settings.cpus))
    spec = ReplicaSpec(place_of(index), engine, settings.near_bytes, threads, load)
    return ReplicatedIndex(RayTransport(spec, settings), settings)


def place_of(index: str | Path) -> str:
    """Return the index as replicas on other machines find it: its URL, or its folder from the root."""
    name = index_name(existing_root(index))
    return name if "://" in name else str(Path(name).absolute())


def _sizes(reader: IndexReader) -> dict[str, int]:
    """Return the rows of data in each segment, by name."""
    return {segment.name: segment.data_rows for segment in reader.generation.segments}


def _leave_out(reader: IndexReader, abouts: Abouts) -> None:
    """Count no vectors that the replicas found unusable, as a process does that has read them itself."""
    for of_partition in abouts.values():
        for encoder, about in of_partition.items():
            reader.vector_reader.leave_out(encoder, about.unusable)
