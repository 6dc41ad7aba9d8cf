"""Boxes and masks: what is cut out, that it looks for itself, and where candidates have it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval import Box, Engine, EngineSettings, Mask, Picture, Query, draw_results
from retrieval.errors import ImageError, UsageError
from retrieval.images.decoding import DecodeRules
from retrieval.scoring.aas import Comparison, aligned_attention_scores
from retrieval.search.candidates import CandidateQuestion
from retrieval.search.results_sheet import sheet_rows
from tests.support.ranking import assert_same_ranking

SIDE = 200


@pytest.fixture(scope="module")
def scene(gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn picture pasted in a grey one of 200 px: at (100, 20), 80 px wide and 60 px high."""
    whole = Image.new("RGB", (SIDE, SIDE), (120, 120, 120))
    whole.paste(Image.open(sorted(gallery.rglob("*.png"))[0]).resize((80, 60)), (100, 20))
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    whole.save(path)
    return path


def read(image: Path, region: Box | Mask | None, rules: DecodeRules | None = None) -> Picture:
    return Query([image], regions=[region]).read(rules or DecodeRules()).pictures[0]


def white(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, box)
    return mask


@pytest.mark.parametrize(
    "region",
    [
        Box(100, 20, 80, 60),
        Box(0.5, 0.1, 0.4, 0.3),
        Mask(white((SIDE, SIDE), (100, 20, 180, 80))),
        Mask(white((20, 10), (10, 1, 18, 4))),
        Mask(np.asarray(white((20, 20), (10, 2, 18, 8))) > 0),
    ],
    ids=["pixels", "fractions", "mask", "mask of another shape", "array of bools"],
)
def test_the_same_part_is_cut_out_whatever_names_it(scene: Path, region: Box | Mask) -> None:
    picture = read(scene, region)
    assert np.array_equal(np.asarray(picture.image), np.asarray(Image.open(scene).crop((100, 20, 180, 80))))
    assert (picture.width, picture.height) == (SIDE, SIDE)
    assert picture.about()["region"]["box"] == pytest.approx([0.5, 0.1, 0.4, 0.3])
    assert ("mask" in picture.about()["region"]) == isinstance(region, Mask)


@pytest.mark.parametrize(
    ("draft", "side"), [(50, 100), (51, 200), (100, 200), (101, 400), (None, 400)], ids=["4", "2", "2'", "1", "full"]
)
def test_drafts_keep_the_detail_of_a_part_of_the_upright_picture(tmp_path: Path, draft: int | None, side: int) -> None:
    """A draft of the whole picture would be half as large or less, and EXIF turns it by 90 degrees."""
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    image, exif = Image.fromarray(pixels).resize((1200, 800), Image.Resampling.NEAREST), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95, subsampling=0)
    rules, mask = DecodeRules(draft=draft), white((800, 1200), (80, 600, 480, 1100))
    upright = image.transpose(Image.Transpose.ROTATE_270).crop((80, 600, 480, 1100))
    expected = np.asarray(upright.resize((side, side * 5 // 4), Image.Resampling.BOX), int)
    for region in (Box(80, 600, 400, 500), Box(0.1, 0.5, 0.5, 5 / 12), Mask(mask)):
        picture = read(tmp_path / "turned.jpg", region, rules)
        assert (picture.width, picture.height) == (800, 1200)
        assert picture.image.size == (side, side * 5 // 4)
        assert np.abs(np.asarray(picture.image, int) - expected).mean() < 12


@pytest.mark.parametrize("whole", [Box(0, 0, 1, 1), Box(0, 0, 96, 96), Mask(np.ones((7, 9), np.bool_)), None])
def test_the_whole_picture_is_no_region(engine: Engine, files: list[Path], whole: Box | Mask | None) -> None:
    alone = engine.search(files[0], "style", k=8, candidates=12)
    found = engine.search(Query([files[0]], regions=[whole]), "style", k=8, candidates=12)
    assert_same_ranking(found, alone)
    assert found.query == alone.query
    assert all(result.found_box is None for result in found)


@pytest.mark.parametrize("mode", ["style", "instance"])
def test_a_region_scores_in_one_direction(engine: Engine, files: list[Path], scene: Path, mode: str) -> None:
    context = engine._context
    cut = read(scene, Box(100, 20, 80, 60)).image
    found = engine.search(Query([scene], regions=[Box(100, 20, 80, 60)]), mode, k=40, exhaustive=True)
    query, other = (
        context.tensors([context.models.prepare(image)], role, mode)
        for image, role in ((cut, "query"), (Image.open(found[5].path).convert("RGB"), "gallery"))
    )
    how = Comparison(readout=context.models.readout(mode), directions="query_to_candidate")
    assert found[5].score == pytest.approx(float(aligned_attention_scores(query, other, how)[0]), abs=2e-3)
    assert len(found) == 40
    # Modes without a tie find the picture that was pasted, now that the grey around it does not count.
    assert found[0].path == str(files[0])


def test_a_mask_weighs_tokens(engine: Engine, scene: Path) -> None:
    box, hard = Box(100, 20, 80, 60), white((SIDE, SIDE), (100, 20, 180, 80))
    soft = hard.copy()
    soft.paste(0, (110, 30, 150, 60))

    def scores(region: Box | Mask) -> dict[int, float | None]:
        found = engine.search(Query([scene], regions=[region]), "instance", k=40, exhaustive=True)
        return {result.id: result.score for result in found}

    assert scores(Mask(hard)) == scores(box)
    assert scores(Mask(soft)) != pytest.approx(scores(box), abs=1e-4)
    grey = Image.eval(hard, lambda value: value * 200 // 255)
    assert scores(Mask(grey)) == pytest.approx(scores(box), abs=1e-6), "only ratios of weights matter"


def test_results_say_where_they_have_the_region(engine: Engine, gallery: Path, scene: Path, tmp_path: Path) -> None:
    from retrieval import build_index

    build_index([scene, gallery / sorted(p.name for p in gallery.iterdir())[1]], tmp_path / "i.diffsim", model="cells")
    opened = Engine.open(tmp_path / "i.diffsim", EngineSettings(device="cpu"))
    question = Query([scene], regions=[Box(100, 20, 80, 60)])
    found = opened.search(question, "instance", k=9)
    mine = next(result for result in found if result.path == str(scene))
    assert mine.found_box is not None
    x, y, width, height = mine.found_box
    across = min(x + width, 0.9) - max(x, 0.5)
    down = min(y + height, 0.4) - max(y, 0.1)
    assert across * down / (width * height + 0.12 - across * down) > 0.3
    assert found.to_dict()["results"][0]["found_box"] == found[0].found_box
    assert "locate" in found.timing_ms
    (row,) = sheet_rows([found], question)
    assert row.query.box == pytest.approx((0.5, 0.1, 0.4, 0.3))
    assert [cell.box for cell in row.neighbours] == [result.found_box for result in found]
    draw_results(tmp_path / "sheet.html", [(question, found)])
    assert not any(r.found_box for r in opened.search(question, "instance", rerank=False))


@pytest.mark.parametrize("combine", ["mean", "max", "union"])
def test_boards_have_regions(engine: Engine, files: list[Path], scene: Path, combine: str) -> None:
    box, everything = Box(100, 20, 80, 60), {"k": 40, "exhaustive": True}
    mixed = Query([scene, files[1]], weights=None, combine=combine, regions=[box, None])  # type: ignore[arg-type]
    found = engine.search(mixed, "style", **everything)  # type: ignore[arg-type]
    assert "region" in found.query["images"][0]
    assert "region" not in found.query["images"][1]
    assert all(result.found_box for result in found)
    region, whole = (
        {r.id: r.score or 0.0 for r in engine.search(each, "style", **everything)}  # type: ignore[arg-type]
        for each in (Query([scene], regions=[box]), Query([files[1]]))
    )
    joined = {r.id: r.score for r in found}
    if combine == "mean":
        assert joined == pytest.approx({id: (region[id] + whole[id]) / 2 for id in region}, abs=1e-6)
    if combine == "max":
        assert joined == pytest.approx({id: max(region[id], whole[id]) for id in region}, abs=1e-6)


def test_a_question_that_was_read_asks_the_same_again(engine: Engine, scene: Path) -> None:
    question = Query([scene], regions=[Box(0.5, 0.1, 0.4, 0.3)])
    again = engine.read_query(question)
    assert_same_ranking(engine.search(again, "style"), engine.search(question, "style"))


def test_regions_have_a_wider_first_stage(engine: Engine, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int | None] = []
    generate = engine._answerer.generator.generate

    def noted(questions: Sequence[CandidateQuestion], mode: str) -> object:
        seen.extend(question.wanted.candidates for question in questions)
        return generate(questions, mode)

    monkeypatch.setattr(engine._answerer.generator, "generate", noted)
    region = Query([scene], regions=[Box(100, 20, 80, 60)])
    for question, choices in ((scene, {}), (region, {}), (region, {"candidates": 7})):
        engine.search(question, **choices)  # type: ignore[arg-type]
    assert seen[0] is None
    assert seen[1] is not None
    assert seen[1] > 200
    assert seen[2] == 7


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (lambda: Box(0, 0, 0, 5), "sides above 0, not 0,0,0,5"),
        (lambda: Box(-1, 0, 5, 5), "0 or more"),
        (lambda: Box(float("nan"), 0, 5, 5), "0 or more"),
        (lambda: Box(150, 0, 60, 10), r"the box 150,0,60,10 does not lie inside .*scene.png, which has 200 x 200 px"),
        (lambda: Box(0.5, 0, 0.6, 0.1), "which has 200 x 200 px"),
        (lambda: Mask(np.zeros((4, 4), np.uint8)), "no white pixel"),
        (lambda: Mask(np.zeros((4, 4), np.float32)), "uint8"),
        (lambda: Mask("nowhere.png"), "no such file"),
    ],
)
def test_regions_that_make_no_sense_are_refused(scene: Path, region: object, message: str) -> None:
    with pytest.raises((UsageError, ImageError), match=message):
        read(scene, region())  # type: ignore[operator]


def test_a_region_is_given_for_every_image_and_pairs_have_none(engine: Engine, files: list[Path]) -> None:
    with pytest.raises(UsageError, match="1 regions were given for 2 images"):
        Query(files[:2], regions=[None])
    with pytest.raises(UsageError, match="one whole image on each side"):
        engine.score(Query([files[0]], regions=[Box(0, 0, 0.5, 0.5)]), files[1])
