"""Mutated images of every format neither crash nor stop the decoder, and take no more memory than they may."""

import sys

import pytest

from tests.images import fuzzing

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limits are those of Linux")


@pytest.mark.parametrize("numbers", [range(10_000, 10_150), pytest.param(range(2000), marks=pytest.mark.slow)], ids=len)
def test_mutated_images_are_decoded_or_refused(numbers: range) -> None:
    outcomes = fuzzing.run(numbers)
    print("\n" + fuzzing.table(outcomes))
    assert {kind: outcome.bad for kind, outcome in outcomes.items() if outcome.bad} == {}
    assert sum(sum(outcome.counts.values()) for outcome in outcomes.values()) == len(numbers)
    assert all(outcome.counts["refused"] for outcome in outcomes.values())


def test_a_mutation_is_the_same_everywhere() -> None:
    files = {"X": [bytes(range(256))]}
    assert fuzzing.mutated(5, files) == fuzzing.mutated(5, files) != fuzzing.mutated(6, files)
