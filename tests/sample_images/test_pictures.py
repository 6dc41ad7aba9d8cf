"""The drawn gallery: deterministic, complete, and crossed (style and motif vary independently)."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from retrieval.errors import UsageError
from retrieval.sample_images import pictures as module
from retrieval.sample_images.motifs import ROLES, compose
from retrieval.sample_images.pictures import MOTIFS, PALETTES, STYLES, draw, draw_gallery, gallery
from tests.slices import EVERY

SIZE = 64
SHARED = (("poster", "papercut"), ("oil", "pointillism"), ("stained-glass", "mosaic"))

pytestmark = pytest.mark.xdist_group("pictures")  # the gallery is drawn once

Pictures = dict[tuple[str, str], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return {(picture.style, picture.motif): picture.pixels for picture in gallery(SIZE)}


def colours(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    shares = [np.histogram(pixels[..., k], 8, (0, 256))[0] / pixels[..., k].size for k in range(3)]
    return np.concatenate(shares)


def texture(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    levels = pixels.astype(np.float64)
    soft = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.2))).astype(np.float64)
    steps = np.abs(np.diff(levels, axis=1))
    fine = np.abs(levels - soft)
    return np.array([fine.mean() / 20, steps.mean() / 30, np.median(fine) / 10, (steps.max(axis=-1) < 2).mean()])


def nearest_share(features: NDArray[np.float64], labels: list[str]) -> float:
    apart = np.abs(features[:, None] - features[None]).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    return float(np.mean([labels[i] == labels[j] for i, j in enumerate(apart.argmin(axis=1))]))


def test_there_are_enough_styles_and_motifs() -> None:
    assert len(set(STYLES)) == len(STYLES) >= 12
    assert len(set(MOTIFS)) == len(MOTIFS) >= 8
    assert set(PALETTES) == set(STYLES)


@pytest.mark.thorough
def test_every_style_draws_every_motif(pictures: Pictures) -> None:
    assert set(pictures) == {(style, motif) for style in STYLES for motif in MOTIFS}
    for pixels in pictures.values():
        assert pixels.shape == (SIZE, SIZE, 3)
        assert pixels.dtype == np.uint8
        assert pixels.std() > 8
    assert len({pixels.tobytes() for pixels in pictures.values()}) == len(pictures)


@pytest.mark.parametrize("style", STYLES)
def test_the_same_arguments_give_the_same_pixels(style: str, pictures: Pictures) -> None:
    assert np.array_equal(draw(style, "fish", SIZE), pictures[style, "fish"])


def test_seed_and_variant_change_the_picture() -> None:
    first = draw("ink", "cat", SIZE)
    assert not np.array_equal(first, draw("ink", "cat", SIZE, variant=1))
    assert not np.array_equal(first, draw("ink", "cat", SIZE, seed=1))
    assert np.array_equal(draw("ink", "cat", SIZE, variant=1), draw("ink", "cat", SIZE, variant=1))


def test_drawing_leaves_numpys_own_generator_alone() -> None:
    np.random.seed(5)
    expected = np.random.random_sample()
    np.random.seed(5)
    draw("mosaic", "cat", 16)
    assert np.random.random_sample() == expected


@pytest.mark.parametrize("size", [16, 33, pytest.param(100, marks=pytest.mark.slow)])  # SIZE lies between
@pytest.mark.parametrize("style", STYLES)
def test_any_size_is_drawn(style: str, size: int) -> None:
    assert draw(style, "flower", size).shape == (size, size, 3)


@pytest.mark.parametrize("motif", MOTIFS)
def test_compositions_of_a_motif_are_not_aligned(motif: str) -> None:
    first, second = (compose(motif, np.random.RandomState(seed)) for seed in (1, 2))
    assert all(0 <= role < len(ROLES) for role, _ in first)
    assert len(first) < 256  # a byte numbers the shapes
    main = ROLES.index("main")
    a, b = (next(points for role, points in scene if role == main) for scene in (first, second))
    assert np.abs(a - b[: len(a)]).max() > 0.01
    for points in (a, b):
        assert ((points > -0.2) & (points < 1.2)).all()


def test_simple_statistics_tell_styles_and_not_motifs(pictures: Pictures) -> None:
    features = np.array([np.concatenate([colours(p), texture(p)]) for p in pictures.values()])
    assert nearest_share(features, [style for style, _ in pictures]) > 0.7
    assert nearest_share(features, [motif for _, motif in pictures]) < 0.3


@pytest.mark.parametrize("pair", SHARED)
def test_styles_that_share_palettes_differ_in_texture(pair: tuple[str, str], pictures: Pictures) -> None:
    first, second = pair
    assert PALETTES[first] == PALETTES[second]
    chosen = [(style, motif) for style in pair for motif in MOTIFS]
    features = np.array([texture(pictures[key]) for key in chosen])
    assert nearest_share(features, [style for style, _ in chosen]) >= 0.75


def test_a_gallery_is_written_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, some = tmp_path / "new" / "gallery", STYLES if EVERY else STYLES[:4]
    monkeypatch.setattr(module, "STYLES", some)
    paths = draw_gallery(folder, size=16)
    assert paths == [folder / style / f"{motif}.png" for style in some for motif in MOTIFS]
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(paths)
    with Image.open(paths[-1]) as image:
        assert np.array_equal(np.asarray(image), draw(some[-1], MOTIFS[-1], 16))

    other = folder / some[-1] / "mine.txt"
    other.write_text("kept")
    before = {path: path.read_bytes() for path in paths}
    paths[0].write_bytes(b"damaged")
    monkeypatch.setattr(module, "STYLES", STYLES[:2])
    assert draw_gallery(folder, size=16) == paths[: 2 * len(MOTIFS)]
    assert {path: path.read_bytes() for path in paths} == before
    assert other.read_text() == "kept"


@pytest.mark.parametrize(
    ("style", "motif", "names"), [("cubism", "cat", STYLES), ("ink", "dog", MOTIFS), ("", "cat", STYLES)]
)
def test_unknown_names_list_the_known_ones(style: str, motif: str, names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        draw(style, motif)
    assert all(name in str(caught.value) for name in names)


def test_a_picture_too_small_to_draw_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 16"):
        draw("ink", "cat", 15)


@pytest.mark.thorough
def test_the_drawn_sets_have_the_benchmarks_layouts(tmp_path: Path) -> None:
    from retrieval.evaluation.benchmarks.paper import BenchOptions
    from retrieval.evaluation.benchmarks.table import describe_bench
    from retrieval.evaluation.triplets import read_groups
    from retrieval.sample_images import layouts

    assert layouts.draw_styles(tmp_path / "sref", 24) == 4 * len(STYLES)
    assert {len(paths) for paths in read_groups(tmp_path / "sref").values()} == {4}
    assert layouts.draw_characters(tmp_path / "ip", 24) == 8 * len(STYLES)
    assert len(describe_bench("ip").load(tmp_path / "ip", BenchOptions())) == 5 * len(STYLES)
    assert layouts.draw_scenes(tmp_path / "coco", 24) == 6 * len(MOTIFS)
    assert list(read_groups(tmp_path / "coco")) == sorted(MOTIFS)
    original = Image.open(tmp_path / "ip" / "original" / "ink-fish.png")
    near, far = (np.asarray(layouts.drifted(original, weight, 0)).astype(float) for weight in (1.0, 0.2))
    assert np.abs(near - np.asarray(original)).mean() < np.abs(far - np.asarray(original)).mean()
