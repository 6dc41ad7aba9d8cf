"""Descriptors of cells against scikit-image, and the values that are made of them."""

import numpy as np
import pytest
import torch

from retrieval.models.cells.histograms import cell_histograms, grey, lab_histograms, to_lab, uniform_patterns
from retrieval.models.cells.values import border_contrast, match_features, roots, weighted
from retrieval.models.modes import CellValues


def cell_values(pixels: torch.Tensor, patterns: float) -> torch.Tensor:
    return weighted(*cell_histograms(pixels, 6), CellValues(patterns))


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_lab_and_patterns_are_scikit_images() -> None:
    from skimage.color import rgb2lab
    from skimage.feature import local_binary_pattern

    pixels = noise(1, 3, 48, 40)
    rgb, luma = pixels[0].permute(1, 2, 0).numpy(), grey(pixels)
    np.testing.assert_allclose(to_lab(pixels)[0].permute(1, 2, 0).numpy(), rgb2lab(rgb), atol=2e-3)
    for points, radius in ((8, 1.0), (8, 2.0), (12, 3.0)):
        expected = local_binary_pattern(luma[0].numpy().astype(np.uint8), points, radius, "uniform")
        assert (uniform_patterns(luma, points, radius)[0].numpy() == expected).mean() > 0.995


def test_histograms_of_cells_sum_to_one_and_average_to_the_images() -> None:
    pixels = noise(2, 3, 48, 48)
    for by_cell, whole, total in zip(cell_histograms(pixels, 6), cell_histograms(pixels, 1), (1, 3), strict=True):
        torch.testing.assert_close(by_cell.sum(dim=-1), torch.full((2, 36), float(total)))
        torch.testing.assert_close(by_cell.mean(dim=1), whole[:, 0])


def test_a_size_that_cells_do_not_divide_will_do() -> None:
    for histograms, total in zip(cell_histograms(noise(2, 3, 64, 64), 6), (1, 3), strict=True):
        torch.testing.assert_close(histograms.sum(dim=-1), torch.full((2, 36), float(total)))


def test_a_colour_falls_into_the_bins_around_it() -> None:
    lab = torch.zeros(1, 3, 4, 4)
    lab[:, 0] = 62.5  # midway between the third and the fourth of five levels of L
    histogram = lab_histograms(lab, 1).view(5, 6, 6)
    torch.testing.assert_close(histogram.sum(dim=(1, 2)), torch.tensor([0.0, 0.0, 0.5, 0.5, 0.0]))
    torch.testing.assert_close(histogram[2, 2:4, 2:4], torch.full((2, 2), 0.125))  # a = b = 0 lies between two bins


def test_a_flat_area_is_one_pattern_not_noise() -> None:
    codes = uniform_patterns(torch.full((1, 20, 20), 37.0), 8, 2.0)
    assert codes[0, 4:-4, 4:-4].unique().tolist() == [8]


def test_a_cell_belongs_to_its_place() -> None:
    pixels = torch.zeros(1, 3, 48, 48, dtype=torch.uint8)
    pixels[:, :, 8:16, 16:24] = 255  # row 1, column 2 of 6 x 6
    white = cell_histograms(pixels, 6)[0][0].view(36, 5, 36)[:, 4].sum(dim=1)
    assert white.argmax() == 8
    assert white[8] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("place", [(16, 16), (8, 24)])
def test_a_subject_counts_more_than_its_surroundings_wherever_it_stands(place: tuple[int, int]) -> None:
    pixels = noise(1, 3, 48, 48) // 8 + 40
    top, left = place
    pixels[:, 0, top : top + 16, left : left + 16] = 220
    weights = border_contrast(cell_values(pixels, 0.3), 1.0).view(6, 6)
    subject = weights[top // 8 : top // 8 + 2, left // 8 : left // 8 + 2]
    assert weights.mean() == pytest.approx(1.0, abs=1e-5)
    assert subject.mean() > 3
    assert weights[0].mean() < 0.5


def test_logits_are_sharpness_times_likeness() -> None:
    cells = cell_values(noise(1, 3, 48, 48), 0.3)
    features, found = match_features(cells, 20.0), roots(cells)
    logits = features @ features.transpose(1, 2) / features.shape[-1] ** 0.5
    torch.testing.assert_close(logits, 20 * found @ found.transpose(1, 2))


def test_values_weigh_texture_and_contrast() -> None:
    lab, lbp = cell_histograms(noise(1, 3, 48, 48), 6)
    plain = weighted(lab, lbp, CellValues(patterns=2.0))
    assert torch.equal(plain, torch.cat([lab, 2 * lbp], dim=-1))
    torch.testing.assert_close(weighted(lab, lbp, CellValues(2.0, contrast=1.0)).sum(), plain.sum(), rtol=1e-4, atol=0)
