"""Replicas answer as one process does, however many there are and whatever is asked."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import Engine
from retrieval.search.replicas.replica import ReplicaSpec
from retrieval.search.replicas.replicated_index import ReplicatedIndex
from retrieval.search.replicas.transport import LocalTransport
from retrieval.settings import ReplicaSettings
from tests.search.replicas.conftest import LOAD, ON_CPU, Open
from tests.search.replicas.questions import KINDS, Asked, assert_same_answer
from tests.slices import examples

MODES = ["style", "instance", "semantic"]


@pytest.fixture(scope="module")
def engines(segments: Path) -> Iterator[dict[int, Engine]]:
    """One, three and five replicas of the index; of five, each segment lies on two."""
    spec = ReplicaSpec(str(segments), ON_CPU, load=LOAD)
    counts = (ReplicaSettings(1), ReplicaSettings(3), ReplicaSettings(5, 2))
    made = {each.count: ReplicatedIndex(LocalTransport(spec), each) for each in counts}
    yield {count: each.open(segments, ON_CPU, LOAD) for count, each in made.items()}
    for each in made.values():
        each.close()


@pytest.fixture(scope="module")
def files(gallery: Path) -> list[Path]:
    return sorted(gallery.rglob("*.png"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_question(kind: str, engines: dict[int, Engine], alone: Engine, files: list[Path]) -> None:
    asked = KINDS[kind](files, 9)
    assert_same_answer(asked.of(engines[3]), asked.of(alone))


@settings(max_examples=examples(12))
@given(st.sampled_from([1, 3, 5]), st.sampled_from(MODES), st.integers(0, 39), st.integers(1, 40), st.booleans())
def test_any_number_of_replicas_answers_as_one_process(
    engines: dict[int, Engine], alone: Engine, files: list[Path], count: int, mode: str, n: int, most: int, copies: bool
) -> None:
    asked = Asked(files[n], mode, choices={"candidates": most, "k": most, "exclude_copies": copies})
    assert_same_answer(asked.of(engines[count]), asked.of(alone))


def test_questions_of_a_batch_are_answered_together(
    engines: dict[int, Engine], alone: Engine, files: list[Path]
) -> None:
    several = [files[n] for n in (0, 9, 17, 30)]
    found, expected = (list(engine.search_many(several, "instance", candidates=8)) for engine in (engines[3], alone))
    for (_, mine), (_, theirs) in zip(found, expected, strict=True):
        assert_same_answer(mine, theirs)


def test_more_replicas_than_segments(segments: Path, opened: Open, alone: Engine, files: list[Path]) -> None:
    _, engine = opened(segments, 12)
    assert_same_answer(KINDS["box"](files, 4).of(engine), KINDS["box"](files, 4).of(alone))
