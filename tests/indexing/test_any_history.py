"""Any history of a folder and its index ends in the same answers as a fresh index."""

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from retrieval.indexing.build import build_index
from retrieval.indexing.fill import fill_index
from retrieval.indexing.reports import BuildEvent
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.removing import remove_items
from retrieval.indexing.upkeep.repairing import verify
from retrieval.search.engine import Engine
from tests.indexing.builds import assert_same_scores, ids_of
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import tiny_model

pytestmark = pytest.mark.usefixtures("tiny")


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens to a folder and its index, it answers like a fresh index of the folder as it is."""

    names = st.sampled_from([f"{n}.png" for n in range(7)])

    @initialize(lazy=st.booleans())
    def start(self, lazy: bool) -> None:
        import tempfile

        self.root = Path(tempfile.mkdtemp())
        self.folder, self.index = self.root / "images", self.root / "images.diffsim"
        self.seed = 0
        self.modes = ["style"]
        self.truth: dict[tuple[str, str], float | None] = {}  # by mode and SHA-256, the score that fresh indexes gave
        paint(self.folder, ["keep.png"])
        self.build(self.index, "lazy" if lazy else "eager")

    def build(self, index: Path, rule: Any = None) -> None:
        with tiny_model():
            build_index(
                self.folder, index, model="cells", modes=self.modes, run=replace(RUN, attention=rule, gone=True)
            )

    def write(self, name: str) -> None:
        self.seed += 1
        paint(self.folder, [name], seed=self.seed)

    @rule(name=names)
    def add_or_change(self, name: str) -> None:
        self.write(name)

    @rule(old=names, new=names)
    def rename(self, old: str, new: str) -> None:
        if (self.folder / old).exists():
            (self.folder / old).replace(self.folder / new)

    @rule(name=names)
    def copy(self, name: str) -> None:
        shutil.copy(self.folder / "keep.png", self.folder / name)

    @rule(one=names, two=names)
    def swap(self, one: str, two: str) -> None:
        if one != two and (self.folder / one).exists() and (self.folder / two).exists():
            (self.folder / one).rename(self.root / "aside.png")
            (self.folder / two).rename(self.folder / one)
            (self.root / "aside.png").rename(self.folder / two)

    @rule(together=st.booleans())
    def move_the_photos(self, together: bool) -> None:
        """With their index, which finds them; or alone, so that a build has to."""
        self.seed += 1
        if together:
            self.root = self.root.rename(self.root.with_name(f"{self.root.name}-{self.seed}"))
            self.folder, self.index = self.root / self.folder.name, self.root / "images.diffsim"
        else:
            self.build(self.index)  # else files that are gone stay, and a note says so: their source was not given
            self.folder = self.folder.rename(self.root / f"images-{self.seed}")
            self.build(self.index)

    @rule()
    def keep_a_copy_of_the_index(self) -> None:
        shutil.rmtree(self.root / "saved", ignore_errors=True)
        shutil.copytree(self.index, self.root / "saved")
        self.saved_modes = list(self.modes)

    @rule()
    def put_the_copy_over_the_index(self) -> None:
        if (self.root / "saved").exists():
            shutil.copytree(self.root / "saved", self.index, dirs_exist_ok=True)
            self.modes = self.saved_modes
            self.mend()
            self.build(self.index)

    def mend(self) -> None:
        """An index that came back from the past may have damage of the past."""

    @rule(name=names)
    def delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    @rule(name=names)
    def spoil(self, name: str) -> None:
        (self.folder / name).write_bytes(b"no picture")

    @rule(name=names)
    def remove_from_the_index(self, name: str) -> None:
        if name in ids_of(self.index):
            remove_items(self.index, [str(self.folder / name)])

    @rule(now=st.booleans())
    def compact(self, now: bool) -> None:
        compact(self.index, now)

    @rule(mode=st.sampled_from(["semantic", "instance"]))
    def add_a_mode(self, mode: str) -> None:
        self.modes = list(dict.fromkeys([*self.modes, mode]))
        self.build(self.index)

    @rule(rule=st.sampled_from(["eager", "lazy"]))
    def change_the_rule(self, rule: str) -> None:
        self.build(self.index, rule)

    @rule(
        order=st.sampled_from(["newest", "oldest", "path", "like:keep.png"]),
        place=st.integers(0, 5),
        whole=st.booleans(),
    )
    def fill(self, order: str, place: int, whole: bool) -> None:
        """All of it, or a batch."""
        mode = self.modes[place % len(self.modes)]

        def stop(event: BuildEvent) -> None:
            if event.stage == "encode":
                raise KeyboardInterrupt

        with tiny_model(), suppress(KeyboardInterrupt):
            on_progress = (lambda event: None) if whole else stop
            fill_index(self.index, modes=[mode], order=[order], run=RUN, on_progress=on_progress)

    @rule()
    def lose_the_cache(self) -> None:
        shutil.rmtree(self.index / "cache", ignore_errors=True)

    @rule()
    def search_what_is_outdated(self) -> None:
        """Files may be gone or others by now: what is scored all the same is scored as what was indexed."""
        mode = self.modes[-1]
        with tiny_model():
            results = Engine.open(self.index).search(self.folder / "keep.png", mode, exhaustive=True, k=100)
        for result in results:
            assert self.truth.get((mode, result.sha256), result.score) == pytest.approx(result.score, abs=1e-6)

    @rule()
    def answers_like_a_fresh_index(self) -> None:
        fresh = self.root / "fresh.diffsim"
        self.build(self.index)
        self.build(fresh)
        with tiny_model():
            for found, expected in zip(self.answers(self.index), self.answers(fresh), strict=True):
                assert_same_scores(found, expected)
        assert verify(self.index) == []
        shutil.rmtree(fresh)

    def answers(self, index: Path) -> list[dict[str, float | None]]:
        """Return the exact scores by path, and those of the first stage. Ids differ between two indexes."""
        engine = Engine.open(index)
        query, mode = self.folder / "keep.png", self.modes[-1]
        exact = engine.search(query, mode, exhaustive=True, k=100)
        coarse = engine.search(query, mode, rerank=False, k=100)
        assert exact.left_out == 0
        self.truth |= {(mode, result.sha256): result.score for result in exact}
        return [{r.path: r.score for r in exact}, {r.path: r.coarse_score for r in coarse}]

    def teardown(self) -> None:
        if hasattr(self, "root"):
            self.answers_like_a_fresh_index()
            shutil.rmtree(self.root)


TestAnyHistory = pytest.mark.thorough(AnyHistory.TestCase)  # going back has all its steps, and more
TestAnyHistory.settings = settings(
    max_examples=6,
    derandomize=True,  # the slow test of going back draws other histories every time
    stateful_step_count=16,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking builds indexes for minutes
)
