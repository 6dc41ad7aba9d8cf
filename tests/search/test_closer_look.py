"""A closer look: the best results of a region are ordered by the place that has it, encoded from their files."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retrieval import Box, Engine, Query, SearchSettings, Subject, build_index
from retrieval.errors import UsageError
from retrieval.scoring.aas import Comparison, aligned_attention_scores
from retrieval.search.queries.region import pixels_of
from tests.support.paths import DATA
from tests.support.sample_index import RUN

PICTURES = sorted((DATA / "golden_images").glob("*.png"))[:4]
SIDE = 320


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each picture small on a grey scene, at another place."""
    folder = tmp_path_factory.mktemp("scenes")
    for number, path in enumerate(PICTURES):
        scene = Image.new("RGB", (SIDE, SIDE), (110 + 10 * number, 120, 120))
        scene.paste(Image.open(path).convert("RGB").resize((128, 128)), (40 * number, 150 - 40 * number))
        scene.save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def engine(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    index = tmp_path_factory.mktemp("index") / "x.diffsim"
    build_index(scenes, index, model="mini", modes=["instance"], run=RUN)
    return Engine.open(index)


def question(number: int, region: Box | Subject | None = None) -> Query:
    return Query([PICTURES[number]], regions=[region or Box(0.05, 0.05, 0.9, 0.9)])


def test_the_first_results_are_ordered_by_their_found_boxes(engine: Engine) -> None:
    context, everything = engine._context, {"k": 4, "exhaustive": True}
    whole = engine.search(question(1), **everything)  # type: ignore[arg-type]
    found = engine.search(question(1), look_closer=3, **everything)  # type: ignore[arg-type]
    assert {r.id: (r.score, r.found_box) for r in found} == {r.id: (r.score, r.found_box) for r in whole}
    assert [r.rank for r in found] == [1, 2, 3, 4]
    assert (found[3].id, found[3].order_key) == (whole[3].id, None)
    keys = [r.order_key or 0.0 for r in found[:3]]
    assert keys == sorted(keys, reverse=True)
    cut = engine.read_query(question(1)).pictures[0].image
    for result in found[:3]:
        place = Image.open(result.path).convert("RGB")
        assert result.found_box is not None
        query, candidate = (
            context.tensors([context.models.prepare(image)], role, "instance")  # type: ignore[arg-type]
            for image, role in ((cut, "query"), (place.crop(pixels_of(result.found_box, place.size)), "gallery"))
        )
        expected = aligned_attention_scores(query, candidate, Comparison(directions="query_to_candidate"))
        assert result.order_key == pytest.approx(float(expected[0]), abs=1e-4)
    assert "look closer" in found.timing_ms


@pytest.mark.parametrize("number", range(4))
def test_it_sees_a_small_subject_as_if_it_were_large(number: int, engine: Engine) -> None:
    found = engine.search(question(number), k=1, look_closer=4, exhaustive=True)
    assert Path(found[0].path).stem == str(number)
    assert len(found) == 1
    assert (found[0].order_key or 0) > (found[0].score or 1)


def test_files_that_are_gone_or_other_ones_stand_behind(scenes: Path, tmp_path: Path) -> None:
    photos, index = Path(shutil.copytree(scenes, tmp_path / "photos")), tmp_path / "x.diffsim"
    build_index(photos, index, model="mini", modes=["instance"], run=RUN)
    (photos / "1.png").unlink()
    shutil.copy(photos / "0.png", photos / "2.png")
    found = Engine.open(index).search(question(1), look_closer=4, k=4, exhaustive=True)
    assert [r.order_key is None for r in found] == [False, False, True, True]
    assert {Path(r.path).name for r in found[2:]} == {"1.png", "2.png"}
    assert found[2].score >= found[3].score  # type: ignore[operator]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"look_closer": -1}, "look closer must be at least 0"),
        ({"look_closer": 2, "rerank": False}, "orders by exact cosine scores"),
        ({"look_closer": 2, "mode_weights": {"style": 1}}, "of one mode"),
        ({"look_closer": 2, "scaling": "csls"}, "both choose the order"),
    ],
)
def test_choices_that_contradict_it_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SearchSettings(**choices)


def test_it_needs_one_region(engine: Engine) -> None:
    for other in (PICTURES[0], Query(PICTURES[:2], regions=[Box(0, 0, 0.5, 0.5), None])):
        with pytest.raises(UsageError, match="needs one image with a box, a mask or a subject"):
            engine.search(other, look_closer=3)
    assert engine.search(question(0, Subject()), look_closer=3, k=2)
