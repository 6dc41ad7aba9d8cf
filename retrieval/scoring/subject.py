"""Where the subject of a picture is, by the model's own tokens. Pure functions on tensors.

A subject is a square of cells that is like itself and unlike its surroundings. For cosines ``s`` of tokens and a
window W::

    odd(t)     = 1 - mean cosine of token t and the third of the border's tokens that are most like it
    stands out = mean of odd inside W - mean of odd outside W
    coheres    = mean s between two cells of W - mean s between a cell of W and one outside

Each is multiplied by ``sqrt(inside outside / all)`` cells, as in a t-test, and divided by its spread over all windows.
The window with the largest sum is the subject.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from retrieval.types import LEAST_SUBJECT, Fractions

MOST_CELLS = 14  # a side: more are averaged, so that the windows stay few
BORDER_SHARE = 3  # one of so many tokens of the border is compared: a background may have several parts


def subject_box(tokens: Tensor) -> Fractions | None:
    """Return the subject's box in fractions of the grid; None if no window differs from another.

    Args:
        tokens: float ``[rows, columns, channels]``, of a linear measure such as queries.
    """
    tokens = tokens.float()
    rows, columns = (min(side, MOST_CELLS) for side in tokens.shape[:2])
    if min(rows, columns) < 3:
        return None
    cells = adaptive_avg_pool2d(tokens.movedim(2, 0), (rows, columns)).flatten(1).T
    alike = normalize(cells, dim=1) @ normalize(cells, dim=1).T
    boxes, inside = _windows(rows, columns)
    inside = inside.to(cells.device)
    values = _spread(_stands_out(_odd(alike, rows, columns), inside)) + _spread(_coheres(alike, inside))
    if not bool(values.isfinite().all() and values.max() > 0):
        return None
    top, left, height, width = boxes[int(values.argmax())]
    return left / columns, top / rows, width / columns, height / rows


@cache
def _windows(rows: int, columns: int) -> tuple[list[tuple[int, int, int, int]], Tensor]:
    """Return windows (top, left, height, width), and float32 ``[windows, cells]`` with 1 inside of each."""
    boxes = []
    for height in range(max(2, round(LEAST_SUBJECT * rows)), rows):
        width = min(max(1, round(height * columns / rows)), columns)
        boxes += [(top, left, height, width) for top in range(rows - height + 1) for left in range(columns - width + 1)]
    inside = torch.zeros(len(boxes), rows, columns)
    for place, (top, left, height, width) in enumerate(boxes):
        inside[place, top : top + height, left : left + width] = 1
    return boxes, inside.flatten(1)


def _odd(alike: Tensor, rows: int, columns: int) -> Tensor:
    """Return how unlike the border each cell is, ``[cells]``."""
    border = torch.ones(rows, columns, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    nearest = alike[:, border.flatten().to(alike.device)]
    return 1 - nearest.topk(max(1, nearest.shape[1] // BORDER_SHARE), dim=1).values.mean(dim=1)


def _stands_out(values: Tensor, inside: Tensor) -> Tensor:
    within, count = inside @ values, inside.sum(dim=1)
    without = (values.sum() - within) / (inside.shape[1] - count)
    return (within / count - without) * _surprise(inside)


def _coheres(alike: Tensor, inside: Tensor) -> Tensor:
    toward, count = inside @ alike, inside.sum(dim=1)
    within = (toward * inside).sum(dim=1) / count**2
    across = (toward * (1 - inside)).sum(dim=1) / (count * (inside.shape[1] - count))
    return (within - across) * _surprise(inside)


def _surprise(inside: Tensor) -> Tensor:
    count, every = inside.sum(dim=1), inside.shape[1]
    return (count * (every - count) / every).sqrt()


def _spread(values: Tensor) -> Tensor:
    """Return values less their mean, in standard deviations; zeros where all are alike."""
    deviation = values.std()
    return (values - values.mean()) / deviation if bool(deviation > 1e-6) else torch.zeros_like(values)
