"""Evaluation: measures against cases worked out by hand, and the sets' protocols."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.mini import datasets
from retrieval.mini.baselines import bhattacharyya, lab_and_lbp, rgb_histogram, standardised
from retrieval.mini.evaluate import Figures, evaluate, markdown
from retrieval.mini.measures import draw_triplets, measure, triplet_accuracy


def picture(colour: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(np.array(colour) + rng.integers(-10, 10, (256, 256, 1)), 0, 255).astype(np.uint8)


def save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).resize((64, 64)).save(path, quality=95)


def test_mean_average_precision_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    similarity = np.zeros((6, 6))
    similarity[0, [1, 3, 2]] = 3, 2, 1  # hits at ranks 1 and 3: (1 + 2/3) / 2
    similarity[1, [3, 0, 2]] = 3, 2, 1  # ranks 2 and 3: (1/2 + 2/3) / 2
    similarity[2, [0, 1]] = 2, 1  # ranks 1 and 2: 1
    similarity[3, [0, 1, 4]] = 3, 2, 1  # rank 3: 1/3
    similarity[4, [3]] = 1  # rank 1: 1
    similarity[5, [0]] = 1  # alone in its group: no query
    found = measure(similarity, labels)
    assert found.mean_average_precision == pytest.approx(100 * np.mean([5 / 6, 7 / 12, 1, 1 / 3, 1]))
    assert found.top1 == pytest.approx(100 * 3 / 5)


def test_the_diagonal_never_counts() -> None:
    labels = np.array([0, 0, 1, 1])
    similarity = (labels[:, None] == labels).astype(float)
    for diagonal in (-5.0, 5.0):
        np.fill_diagonal(similarity, diagonal)
        found = measure(similarity, labels)
        assert (found.mean_average_precision, found.top1, found.triplets) == (100, 100, 100)


def test_triplets_are_fixed_and_valid() -> None:
    labels = np.array([0, 0, 1, 1, 1, 2])
    triplets = draw_triplets(labels, 500)
    assert np.array_equal(triplets, draw_triplets(labels, 500))
    query, nearer, farther = labels[triplets.T]
    assert (query == nearer).all()
    assert (query != farther).all()
    assert (triplets[:, 0] != triplets[:, 1]).all()
    assert 5 not in triplets[:, 0]


def test_ties_count_half() -> None:
    similarity = np.array([[1.0, 0.5, 0.5], [0.0, 1.0, 0.2], [0.0, 0.0, 1.0]])
    assert triplet_accuracy(similarity, np.array([[0, 1, 2], [1, 2, 0]])) == 75


def test_baselines_know_the_same_picture() -> None:
    images = np.stack(
        [picture((200, 30, 30)), picture((200, 30, 30), 1), picture((20, 30, 200)), picture((20, 90, 30))]
    )
    for baseline in (rgb_histogram, lab_and_lbp):
        similarity = baseline(images)
        assert similarity[0, 1] > max(similarity[0, 2:])
    np.testing.assert_allclose(np.diag(rgb_histogram(images)), 1)
    np.testing.assert_allclose(np.diag(bhattacharyya(np.random.default_rng(0).random((3, 5)))), 1)
    pairs = standardised(lab_and_lbp(images))[~np.eye(4, dtype=bool)]
    assert pairs.mean() == pytest.approx(0, abs=1e-9)
    assert pairs.std() == pytest.approx(1)


def test_groups_are_folders_and_copies_are_made_of_them(tmp_path: Path) -> None:
    for name, colour in (("b", (200, 0, 0)), ("a", (0, 0, 200))):
        for number in range(2):
            save(picture(colour, number), tmp_path / name / f"{number}.jpg")
    groups = datasets.load_groups(tmp_path)
    assert groups.images.shape == (4, 256, 256, 3)
    assert groups.labels.tolist() == [0, 0, 1, 1]
    assert groups.images[0, ..., 2].mean() > 150  # folder a comes first
    grey = datasets.grey(groups.images)
    assert (grey[..., 0] == grey[..., 2]).all()


def test_off_centre_copies_take_another_corner_for_each_of_a_group() -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    image[:128, :128], image[128:, 128:] = 255, 128
    groups = datasets.Groups(np.stack([image] * 8), np.array([0, 0, 0, 0, 1, 1, 1, 1]))
    cropped = datasets.off_centre(groups).images
    means = [float(i.mean()) for i in cropped]
    assert np.array_equal(cropped[:4], cropped[4:])
    assert means[0] == max(means)  # the first keeps its top left
    assert len(set(means)) >= 3


def test_human_votes_become_triplets(tmp_path: Path) -> None:
    rows = [("one", "ours_all", "1"), ("two", "random", "0")]
    (tmp_path / "votes.csv").write_text("id,page_section,human\n" + "".join(",".join(r) + "\n" for r in rows))
    for name, *_ in rows:
        for number, file in enumerate(("ref", "d0", "d1")):
            save(picture((100 * number, 0, 0)), tmp_path / name / f"{file}.jpg")
    votes = datasets.load_triplets(tmp_path, "votes")
    assert votes.triplets.tolist() == [[2, 1, 0], [5, 3, 4]]  # files in the order of their names
    assert votes.unselected.tolist() == [False, True]
    figures = evaluate(votes, lambda images: -np.abs(images.mean((1, 2, 3))[:, None] - images.mean((1, 2, 3))))
    assert figures.triplets == 50  # d0 is nearer in both
    assert figures.unselected == 100


def test_levels_become_ordered_pairs_within_their_series(tmp_path: Path) -> None:
    lines = [("s/a1.jpg", "blur", 1), ("s/a2.jpg", "blur", 2), ("s/a3.jpg", "blur", 3), ("s/n1.jpg", "noise", 1)]
    text = "".join(f"{file},s/ref.jpg,{kind},{level}\n" for file, kind, level in lines)
    (tmp_path / "levels.csv").write_text("file,reference,distortion,level\n" + text)
    for number, name in enumerate(["s/ref.jpg", *(line[0] for line in lines)]):
        save(picture((40 * number, 0, 0)), tmp_path / name)
    levels = datasets.load_triplets(tmp_path, "levels")
    assert len(levels.triplets) == 3  # 1 < 2, 1 < 3, 2 < 3; nothing across series
    assert (
        evaluate(levels, lambda images: -np.abs(images.mean((1, 2, 3))[:, None] - images.mean((1, 2, 3)))).triplets
        == 100
    )


def test_the_table_shows_map_or_triplets() -> None:
    table = {"groups": {"row": Figures(90.0, 40.0, 50.0)}, "votes": {"row": Figures(77.6, unselected=80.0)}}
    assert markdown(table).splitlines()[-1] == "| row | 40.0 | 77.6 |"
