"""Simple statistics to compare with: colour histograms and local binary patterns of whole images. numpy only.

Each function turns images uint8 ``[n, H, W, 3]`` into a similarity matrix float64 ``[n, n]``, higher is closer.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from retrieval.mini.cells import grey, lbp_histograms, to_lab
from retrieval.mini.datasets import Images
from retrieval.mini.measures import Matrix

RGB_BINS = 8
LAB_BINS = (6, 10, 10)
LAB_RANGES = ((0, 100), (-70, 70), (-70, 70))
LAB_LIMITS = np.array(LAB_RANGES).T  # colours beyond count to the outermost bins
SMOOTHING = 0.6  # standard deviation in bins


def rgb_histogram(images: Images) -> Matrix:
    """Intersect RGB histograms of 8 x 8 x 8 bins: ``sum_i min(a_i, b_i)``."""
    codes = (images // (256 // RGB_BINS)).astype(np.int64) @ np.array([RGB_BINS**2, RGB_BINS, 1])
    histograms = np.stack([np.bincount(c.ravel(), minlength=RGB_BINS**3) / c.size for c in codes])
    return np.stack([np.minimum(histograms, h).sum(axis=1) for h in histograms])


def lab_histogram(images: Images) -> Matrix:
    """Bhattacharyya coefficients of smoothed Lab histograms of 6 x 10 x 10 bins."""
    lab = to_lab(torch.from_numpy(_boxed(images, 96).transpose(0, 3, 1, 2).copy())).flatten(2).transpose(1, 2).numpy()
    found = [np.histogramdd(np.clip(pixels, *LAB_LIMITS), bins=LAB_BINS, range=LAB_RANGES)[0] for pixels in lab]
    return bhattacharyya(np.stack([_smooth(h).ravel() for h in found]))


def lbp(images: Images) -> Matrix:
    """Bhattacharyya coefficients of histograms of uniform local binary patterns at three radii."""
    pixels = torch.from_numpy(_boxed(images, 128).transpose(0, 3, 1, 2).copy())
    return bhattacharyya(lbp_histograms(grey(pixels), 1)[:, 0].double().numpy())


def lab_and_lbp(images: Images) -> Matrix:
    """Add both, each standardised over all pairs of the set: the strongest of the simple baselines."""
    return standardised(lab_histogram(images)) + standardised(lbp(images))


def standardised(similarity: Matrix) -> Matrix:
    """Bring the pairs of different images to mean 0 and standard deviation 1."""
    pairs = similarity[~np.eye(len(similarity), dtype=bool)]
    result: Matrix = (similarity - pairs.mean()) / pairs.std()
    return result


def bhattacharyya(histograms: NDArray[np.float64]) -> Matrix:
    """Return ``sum_i sqrt(a_i b_i)`` of all pairs of rows, each brought to sum 1."""
    roots = np.sqrt(histograms / histograms.sum(axis=1, keepdims=True))
    result: Matrix = roots @ roots.T
    return result


def _boxed(images: Images, size: int) -> Images:
    return np.stack([np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BOX)) for i in images])


def _smooth(histogram: NDArray[np.float64]) -> NDArray[np.float64]:
    taps = np.exp(-0.5 * (np.arange(-2, 3) / SMOOTHING) ** 2)
    for axis in range(histogram.ndim):
        histogram = np.apply_along_axis(np.convolve, axis, histogram, taps / taps.sum(), "same")
    return histogram


BASELINES: Mapping[str, Callable[[Images], Matrix]] = {
    "RGB histogram": rgb_histogram,
    "Lab histogram + LBP": lab_and_lbp,
}
