"""Whatever happens to an index, going back included, no picture is ever scored with another picture's tensors."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from index_store.generation import generation_files, is_complete, read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.indexing.upkeep.repairing import repair, verify
from tests.indexing.builds import LAZY, build, exact_scores, fill
from tests.indexing.test_any_history import AnyHistory
from tests.support.faults import flip_bit
from tests.support.sample_index import paint

pytestmark = pytest.mark.usefixtures("tiny")
PLACES = st.integers(
    0, 2**20
)  # taken modulo sizes on the disk, which differ from run to run and so may not be drawn from


class GoingBack(AnyHistory):
    """A history in which somebody also goes back, restores old copies, and repairs damage."""

    @initialize(lazy=st.booleans())
    def start(self, lazy: bool) -> None:
        super().start(lazy)
        self.given: dict[int, str] = {}  # by id the SHA-256 of the picture that first had it
        self.given_in_copy: dict[int, str] = {}
        self.keep_a_copy()

    @property
    def copy_of_index(self) -> Path:
        """Beside the photos, with which it moves."""
        return self.root / "copy"

    @invariant()
    def ids_are_never_given_twice(self) -> None:
        if hasattr(self, "given"):
            for item in IndexReader(self.index).items():
                assert self.given.setdefault(item.id, item.sha256) == item.sha256

    @rule(steps=PLACES)
    def go_back(self, steps: int) -> None:
        layout = Layout(self.index)
        names = [path.name for path in generation_files(layout) if is_complete(layout, path)]
        layout.current.write_text(names[steps % len(names)])
        self.continue_as_found()

    @rule()
    def keep_a_copy(self) -> None:
        shutil.rmtree(self.copy_of_index, ignore_errors=True)
        shutil.copytree(self.index, self.copy_of_index)
        self.given_in_copy = dict(self.given)

    @rule(over=st.booleans())
    def restore_the_copy(self, over: bool) -> None:
        """Put the old copy over the new index, or in its place, which forgets what was given since."""
        if not over:
            shutil.rmtree(self.index)
            self.given = dict(self.given_in_copy)
        shutil.copytree(self.copy_of_index, self.index, dirs_exist_ok=True)
        self.continue_as_found()

    def mend(self) -> None:
        """A state of before a repair still names the damage that the repair took out; every command says so."""
        if verify(self.index):
            repair(self.index)
            assert verify(self.index) == []

    def continue_as_found(self) -> None:
        self.mend()
        self.modes = list(read_current(Layout(self.index)).modes)

    @rule(file=PLACES, bit=PLACES)
    def damage_and_repair(self, file: int, bit: int) -> None:
        files = sorted(path for path in self.index.rglob("*") if path.is_file() and path.stat().st_size)
        victim = files[file % len(files)]
        flip_bit(victim, bit % (8 * victim.stat().st_size))
        before = len(IndexReader(self.index)) if verify(self.index) == [] else None
        found = repair(self.index)
        assert verify(self.index) == []
        assert found.items == found.items_before, "every file that lists images has a second copy"
        assert before in (None, len(IndexReader(self.index)))
        self.continue_as_found()


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.thorough
def test_new_pictures_are_not_scored_with_the_tensors_of_those_before(photos: Path, index: Path, lost: bool) -> None:
    """A search caches tensors by id; then somebody goes back, by hand or because the newest generation is lost."""
    build(photos, index, LAZY)
    paint(photos, ["b0.png", "b1.png"])
    build(photos, index)
    exact_scores(index, photos / "000.png", "style")
    given = IndexReader(index).ids.tolist()
    layout = Layout(index)
    if lost:
        number = read_current(layout).number
        for path in (layout.generation(number), layout.spare_generation(number)):
            flip_bit(path, 999)
        repair(index)
    else:
        layout.current.write_text(layout.generation(read_current(layout).number - 1).name)
    for name in ("b0.png", "b1.png"):
        (photos / name).unlink()
    paint(photos, ["c0.png", "c1.png"])
    build(photos, index)
    build(photos, index.with_name("fresh.diffsim"))
    assert not set(given[-2:]) & set(IndexReader(index).ids.tolist())
    found, fresh = (by_path(place, photos / "000.png") for place in (index, index.with_name("fresh.diffsim")))
    assert found == pytest.approx(fresh, abs=1e-6)
    fill(index)
    assert by_path(index, photos / "000.png") == pytest.approx(fresh, abs=1e-6)


def by_path(index: Path, query: Path) -> dict[str, float]:
    scores = exact_scores(index, query, "style")
    return {item.uri: scores[item.id] for item in IndexReader(index).items()}


TestGoingBack = GoingBack.TestCase
TestGoingBack.settings = settings(
    max_examples=4,
    derandomize=True,  # the slow test draws other histories every time
    stateful_step_count=16,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking builds indexes for minutes
)


class ManyHistories(GoingBack):
    """The same, many times."""


TestManyHistories = pytest.mark.slow(ManyHistories.TestCase)
TestManyHistories.settings = settings(TestGoingBack.settings, max_examples=200, derandomize=False)
