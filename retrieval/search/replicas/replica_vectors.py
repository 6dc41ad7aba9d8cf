"""The coarse stage over replicas: the nearest rows of all partitions are those that one process would find.

Cosines of stored vectors do not depend on where they are computed, so the nearest of all are among the nearest of each
partition. An IVF index is probed by every partition in the same lists, and the products of all together decide which
rows are compared exactly, as in one process.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from index_store.vectors.exact import Ranked, best_first, with_spare
from retrieval.search.coarse_vectors import CosinesAsk, Floats, NearestAsk, Rows
from retrieval.search.replicas.fleet import Call, Fleet
from retrieval.search.replicas.ownership import Owners, Ownership, places_by_partition
from retrieval.search.replicas.partition_index import PartAsk, PartNearest
from retrieval.search.replicas.roster import Abouts


class ReplicaVectors:
    """The vectors of one generation that lie on replicas; a :class:`retrieval.search.coarse_vectors.CoarseVectors`."""

    def __init__(self, fleet: Fleet, number: int, owners: Ownership, abouts: Abouts) -> None:
        """Take the replicas, the generation that is open on them, and what they told about its vectors."""
        self._ask = partial(fleet.ask, number)
        self._owners, self._abouts = owners, abouts

    def dim(self, encoder: str) -> int:
        """See :class:`retrieval.search.coarse_vectors.CoarseVectors`."""
        return next((about[encoder].dim for about in self._abouts.values() if encoder in about), 0)

    def nearest(self, asks: Sequence[NearestAsk]) -> list[Ranked]:
        """See :class:`retrieval.search.coarse_vectors.CoarseVectors`."""
        found: dict[int, Ranked] = {}
        probes: dict[int, int | None] = dict.fromkeys(range(len(asks)))  # of the asks that are not answered yet
        own = _OwnRows(self._owners)
        while probes:
            parts = self._parts(asks, probes, own)
            answers = self._ask(
                {partition: Call("nearest", [list(mine.values())], True) for partition, mine in parts.items()}
            )
            every: dict[int, list[PartNearest]] = {number: [] for number in probes}
            for partition, mine in parts.items():
                for number, answer in zip(mine, answers[partition], strict=True):
                    every[number].append(answer)
            for number, answers_of in every.items():
                ranked, more = _merged(asks[number], answers_of, self._wanted(asks[number]))
                if more is None:
                    found[number] = ranked
                    del probes[number]
                else:
                    probes[number] = more
        return [found[number] for number in range(len(asks))]

    def cosines(self, asks: Sequence[CosinesAsk]) -> list[Floats]:
        """See :class:`retrieval.search.coarse_vectors.CoarseVectors`."""
        found = [np.zeros(len(ask.rows), np.float32) for ask in asks]
        places = places_by_partition([self._owners.of_vectors(ask.encoder)[ask.rows] for ask in asks])
        calls = {
            partition: [CosinesAsk(asks[n].encoder, asks[n].vectors, asks[n].rows[mine]) for n, mine in by_ask.items()]
            for partition, by_ask in places.items()
        }
        answers = self._ask(
            {partition: Call("cosines", [of_partition], True) for partition, of_partition in calls.items()}
        )
        for partition, by_ask in places.items():
            for (number, mine), cosines in zip(by_ask.items(), answers[partition], strict=True):
                found[number][mine] = cosines
        return found

    def vectors(self, encoder: str, rows: Rows) -> Floats:
        """See :class:`retrieval.search.coarse_vectors.CoarseVectors`."""
        found = np.zeros((len(rows), self.dim(encoder)), np.float32)
        places = places_by_partition([self._owners.of_vectors(encoder)[rows]])
        calls = {partition: Call("vectors", [encoder, rows[mine[0]]], True) for partition, mine in places.items()}
        for partition, vectors in self._ask(calls).items():
            found[places[partition][0]] = vectors
        return found

    def _wanted(self, ask: NearestAsk) -> int:
        """Return how many rows the IVF parts should find together; 0 where all rows are compared."""
        every = sum(about[ask.encoder].ivf_rows for about in self._abouts.values() if ask.encoder in about)
        return 0 if ask.allowed is not None else min(ask.count, every)

    def _parts(
        self, asks: Sequence[NearestAsk], probes: Mapping[int, int | None], own: "_OwnRows"
    ) -> dict[int, dict[int, PartAsk]]:
        """Return what each partition is asked, by partition and number of the ask."""
        parts: dict[int, dict[int, PartAsk]] = {}
        for number, lists in probes.items():
            ask = asks[number]
            wanted = self._wanted(ask)
            for partition, about in self._abouts.items():
                if ask.encoder not in about:
                    continue
                allowed = own.among(ask, partition)
                if allowed is None or len(allowed):
                    mine = NearestAsk(ask.encoder, ask.vector, ask.count, allowed)
                    parts.setdefault(partition, {})[number] = PartAsk(mine, wanted, lists)
        return parts


class _OwnRows:
    """Divides the rows that pass a filter among partitions, once for all asks with the same ones."""

    def __init__(self, owners: Ownership) -> None:
        self._owners = owners
        self._known: dict[tuple[int, str], tuple[Rows, Owners]] = {}

    def among(self, ask: NearestAsk, partition: int) -> Rows | None:
        if ask.allowed is None:
            return None
        key = id(ask.allowed), ask.encoder
        if key not in self._known:
            self._known[key] = ask.allowed, self._owners.of_vectors(ask.encoder)[ask.allowed]
        rows, owners = self._known[key]
        mine: Rows = rows[owners == partition]
        return mine


def _merged(ask: NearestAsk, found: Sequence[PartNearest], wanted: int) -> tuple[Ranked, int | None]:
    """Return the nearest rows of all partitions and their cosines, or how many lists to probe where rows miss."""
    nothing = np.empty(0, np.int64), np.empty(0, np.float32)
    if not found:
        return nothing, None
    rows, cosines, products = (
        np.concatenate([getattr(each, name) for each in found]) for name in ("rows", "cosines", "products")
    )
    probed = np.flatnonzero(~np.isnan(products))
    most, lists = max(each.probes for each in found), max(each.lists for each in found)
    if len(probed) < wanted and most < lists:
        return nothing, 2 * most
    chosen = probed[np.lexsort((rows[probed], -products[probed]))[: with_spare(wanted)]]
    kept = np.concatenate([chosen, np.flatnonzero(np.isnan(products))])
    return best_first(rows[kept], cosines[kept], ask.count), None
