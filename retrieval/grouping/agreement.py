"""How much of two aligned pictures agrees, block by block: the same picture, or another one that looks like it.

Two photographs of one scene agree in outline, but not in each block of ten pixels: things have moved, and noise, leaves
and hair differ. Copies agree nearly everywhere, after any compression that leaves a picture worth looking at.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.grouping.alignment import Alignment
from retrieval.grouping.pictures import Grey

BLOCK = 10  # pixels a side
AGREES = 0.6  # correlation from which a block counts as the same
STRUCTURE = 2.0  # grey levels: the standard deviation from which a block says anything
ENOUGH = 8  # blocks with structure, fewer prove nothing
SOFTENED = 0.7  # pixels: the radius of a blur that forgives half a pixel of misalignment
MARGIN = 0.03  # of a side: how far a cut may reach beyond the whole picture

Extent = Literal["equal", "inside", "around", "overlapping"]
"""Picture b shows as much as a, a part of it, more than it, or a part that a does not have and the other way around."""


@dataclass(frozen=True)
class Agreement:
    """How two aligned pictures agree."""

    share: float  # of the structure that they share, where blocks agree; 0 where there is too little of it
    extent: Extent
    covers: float  # the share of the larger extent that both show
    border: bool  # whether the picture that shows more has nothing but a plain border there
    lighter: float  # mean brightness of b less that of a, grey levels
    contrast: float  # spread of b's grey levels over that of a


def agree(a: Grey, b: Grey, at: Alignment) -> Agreement:
    """Compare picture ``b``, turned upright already, at its place in ``a``."""
    height, width = a.shape
    box = (at.x, at.y, at.x + b.shape[1] * at.scale, at.y + b.shape[0] * at.scale)
    left, top = max(0, int(np.ceil(box[0] + 1e-6))), max(0, int(np.ceil(box[1] + 1e-6)))
    right, bottom = min(width, int(box[2] + 1e-6)), min(height, int(box[3] + 1e-6))
    extent, covers = _extent(box, (width, height))
    if right - left < 3 * BLOCK or bottom - top < 3 * BLOCK:
        return Agreement(0.0, extent, covers, False, 0.0, 1.0)
    placed = _placed(b, at, (width, height))
    mine, theirs = a[top:bottom, left:right], placed[top:bottom, left:right]
    border = (extent == "inside" and _is_plain(a, box)) or (extent == "around" and _is_plain(b, _box_in(a, at)))
    return Agreement(
        _share(_soft(mine), _soft(theirs)),
        extent,
        covers,
        border,
        float(theirs.mean() - mine.mean()),
        float((theirs.std() + 1) / (mine.std() + 1)),
    )


def _placed(b: Grey, at: Alignment, size: tuple[int, int]) -> Grey:
    inverse = (1 / at.scale, 0, -at.x / at.scale, 0, 1 / at.scale, -at.y / at.scale)
    return np.asarray(Image.fromarray(b).transform(size, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR))


def _soft(picture: Grey) -> Grey:
    """Return the picture softened by weights of three pixels, down and across."""
    weight = SOFTENED / 4
    padded = np.pad(picture, 1, mode="edge")
    rows = padded[:-2] * weight + padded[1:-1] * (1 - 2 * weight) + padded[2:] * weight
    soft: Grey = rows[:, :-2] * weight + rows[:, 1:-1] * (1 - 2 * weight) + rows[:, 2:] * weight
    return soft


def _share(mine: Grey, theirs: Grey) -> float:
    one, other = _blocks(mine), _blocks(theirs)
    spread_one, spread_other = np.sqrt((one**2).mean(axis=1)), np.sqrt((other**2).mean(axis=1))
    # Grey levels that a change of contrast spreads apart are brought to one scale.
    ratio = (float(np.median(spread_one)) + 1) / (float(np.median(spread_other)) + 1)
    # Structure that only one of them has counts against them.
    structure = np.maximum(spread_one, spread_other * min(max(ratio, 0.5), 2.0))
    correlation = (one * other).mean(axis=1) / np.maximum(spread_one * spread_other, 1.0)
    says = structure > STRUCTURE
    if says.sum() < ENOUGH:
        return 0.0
    weights = np.minimum(structure, 10 * STRUCTURE) * says
    return float((weights * (correlation > AGREES)).sum() / weights.sum())


def _blocks(picture: Grey) -> Grey:
    rows, columns = picture.shape[0] // BLOCK, picture.shape[1] // BLOCK
    cut = picture[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    blocks = cut.transpose(0, 2, 1, 3).reshape(-1, BLOCK * BLOCK)
    centred: Grey = blocks - blocks.mean(axis=1, keepdims=True)
    return centred


def _extent(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[Extent, float]:
    """Return how b's ``box`` in a lies to all of a, and the share of the larger one that both show."""
    width, height = size
    spare_x, spare_y = MARGIN * max(width, box[2] - box[0]), MARGIN * max(height, box[3] - box[1])
    inside = (
        box[0] > -spare_x and box[1] > -spare_y and box[2] < width + spare_x and box[3] < height + spare_y
    )  # fmt: skip
    around = box[0] < spare_x and box[1] < spare_y and box[2] > width - spare_x and box[3] > height - spare_y
    own, other = width * height, (box[2] - box[0]) * (box[3] - box[1])
    both = max(0.0, min(box[2], width) - max(box[0], 0)) * max(0.0, min(box[3], height) - max(box[1], 0))
    covers = both / max(own, other)
    if inside and around:
        return "equal", covers
    return ("inside" if inside else "around" if around else "overlapping"), covers


def _box_in(a: Grey, at: Alignment) -> tuple[float, float, float, float]:
    """Return the box of all of ``a`` in b."""
    x, y = -at.x / at.scale, -at.y / at.scale
    return x, y, x + a.shape[1] / at.scale, y + a.shape[0] / at.scale


def _is_plain(picture: Grey, box: tuple[float, float, float, float]) -> bool:
    """Say whether all around ``box`` is a plain border: nearly one grey level in the strips that are wide enough."""
    height, width = picture.shape
    left, top = int(box[0]) - 1, int(box[1]) - 1
    right, bottom = int(np.ceil(box[2])) + 1, int(np.ceil(box[3])) + 1
    strips: list[NDArray[np.float32]] = [
        picture[:, : max(0, left)],
        picture[:, min(width, right) :],
        picture[: max(0, top)],
        picture[min(height, bottom) :],
    ]
    wide = [strip for strip in strips if min(strip.shape) >= 2]
    return bool(wide) and all(float(np.percentile(np.abs(s - np.median(s)), 90)) < 6.0 for s in wide)
