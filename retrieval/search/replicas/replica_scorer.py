"""Exact scores by replicas: each scores the candidates whose tensors it holds, and the scores are put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.search.replicas.fleet import Call, Fleet
from retrieval.search.replicas.ownership import Ownership, places_by_partition
from retrieval.search.replicas.replica import ScoreAsk, on_device
from retrieval.search.reranking import QueryTensors
from retrieval.search.scoring_context import ScoringContext
from retrieval.search.tensors.candidate_tensors import CandidateScores, Scored
from retrieval.search.tensors.local_scorer import BegunScoring, ScoringRun
from retrieval.types import Fractions

PARTS = ("read", "rerank", "compute")  # of the time of a re-ranking


@dataclass(frozen=True)
class ReplicaScorer:
    """Scores rows of one generation on replicas; a :class:`retrieval.search.tensors.local_scorer.CandidateScorer`.

    The progress of computing tensors is not told.
    """

    fleet: Fleet
    number: int  # of the generation
    owners: Ownership

    def begin(self, context: ScoringContext, rows: Sequence[NDArray[np.int64]], run: ScoringRun) -> BegunScoring:
        """Do nothing yet: the replicas begin to read when the queries come."""
        return _BegunThere(self, run)

    def boxes(
        self, context: ScoringContext, region: Scored, rows: Sequence[int], run: ScoringRun
    ) -> Mapping[int, Fractions]:
        """See :class:`retrieval.search.tensors.local_scorer.CandidateScorer`."""
        asked = self.fleet.share(ScoreAsk(run.mode, run.similarity, run.keep, region=on_device(region, "cpu")))
        every = np.array(rows, np.int64)
        places = places_by_partition([self.owners.of_tensors(run.mode)[every]])
        calls = {partition: Call("boxes", [asked, every[mine[0]].tolist()]) for partition, mine in places.items()}
        found: dict[int, Fractions] = {}
        for boxes in self.fleet.ask(self.number, calls, run.cancel).values():
            found |= boxes
        return found

    def make_room(self) -> None:
        """Do nothing: replicas keep candidates in their own memory, and make room there."""

    def scores(self, asked: Sequence[QueryTensors], run: ScoringRun) -> list[CandidateScores]:
        """Return the exact scores of each query's rows, in their order.

        Raises:
            ReplicaLostError: nobody holds the tensors of some rows.
            MemoryFullError: the memory of a replica ran out twice.
        """
        sent = [replace(query, qkv=query.qkv.to("cpu"), rows=()) for query in asked]
        shared = self.fleet.share(ScoreAsk(run.mode, run.similarity, run.keep, sent))
        owners = self.owners.of_tensors(run.mode)
        rows = [np.array(query.rows, np.int64) for query in asked]
        places = places_by_partition([owners[mine] for mine in rows])
        calls = {
            partition: Call("score", [shared, {number: rows[number][at] for number, at in by_query.items()}])
            for partition, by_query in places.items()
        }
        found = self.fleet.ask(self.number, calls, run.cancel) if calls else {}
        return [
            _joined(
                len(mine), [(places[part][number], every[number]) for part, every in found.items() if number in every]
            )
            for number, mine in enumerate(rows)
        ]


@dataclass(frozen=True)
class _BegunThere:
    scorer: ReplicaScorer
    run: ScoringRun

    def scores(self, asked: Sequence[QueryTensors]) -> list[CandidateScores]:
        return self.scorer.scores(asked, self.run)


def _joined(count: int, found: Sequence[tuple[NDArray[np.intp], CandidateScores]]) -> CandidateScores:
    """Put one query's scores of several partitions together; these worked at the same time."""
    scores, is_scored = np.zeros(count, np.float32), np.zeros(count, bool)
    for places, each in found:
        scores[places], is_scored[places] = each.scores, each.is_scored
    return CandidateScores(
        scores,
        is_scored,
        computed=sum(each.computed for _, each in found),
        cached=sum(each.cached for _, each in found),
        unkept=sum(each.unkept for _, each in found),
        timing_ms={part: max((each.timing_ms.get(part, 0.0) for _, each in found), default=0.0) for part in PARTS},
    )
