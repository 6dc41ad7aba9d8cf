"""The exact scores of one question in all modes of a search, and its percentiles among random images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from retrieval.search.judging import merged
from retrieval.search.question_percentiles import Sampled, split_sample
from retrieval.search.tensors.candidate_tensors import CandidateScores, Scored


@dataclass(frozen=True)
class ExactScores:
    """One question's exact scores, and its first region as it was scored."""

    scores: CandidateScores
    region: Scored | None
    mode: str
    others: Mapping[str, CandidateScores] = field(default_factory=dict)  # in further modes
    own: Sampled = field(default_factory=dict)  # percentiles among random images that were scored, too

    def without_sample(self, candidates: int) -> "ExactScores":
        """Return the scores of the candidates alone; those of the random images after them become percentiles."""
        split = {name: split_sample(each, candidates) for name, each in {self.mode: self.scores, **self.others}.items()}
        (scores, _), *_ = split.values()
        own = {name: found for name, (_, found) in split.items() if found is not None}
        return replace(self, scores=scores, others={name: split[name][0] for name in self.others}, own=own)


def of_all_modes(by_mode: Mapping[str, Sequence[ExactScores]]) -> list[ExactScores]:
    """Return each question's scores in the first mode, with those in the others."""
    (mode, *others), every = by_mode, []
    for number, exact in enumerate(by_mode[mode]):
        beside = {other: by_mode[other][number].scores for other in others}
        every.append(replace(exact, scores=merged(exact.scores, beside), others=beside) if beside else exact)
    return every
