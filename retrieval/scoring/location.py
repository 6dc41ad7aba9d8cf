"""Where a candidate has the part that a query asks for. Pure functions on tensors.

The inner product of the query's own output ``o`` and its output over a candidate, ``A v``, is a sum over the
candidate's tokens. Token j's share, before any readout, is::

    share_j = sum over branches, heads and query tokens t of  m_t A_tj <o_t, v_j>

so a token has a large share if the query attends to it and finds there what it has itself.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from retrieval.scoring.aas import QKV, masked
from retrieval.scoring.outputs import attention_output
from retrieval.types import Fractions

ABOVE = 1.25  # of the mean share: a cell with more belongs to the box. Chosen on subjects at 40 % of a side


def candidate_shares(query: QKV, candidates: QKV, query_mask: Tensor | None = None) -> Tensor:
    """Return each candidate token's share of the score from the query to the candidate, not normalised.

    Args:
        query: one item, ``[1, branches, heads, tokens, head_dim]``.
        candidates: ``[candidates, branches, heads, tokens, head_dim]`` on the query's device.
        query_mask: bool or weights >= 0, ``[tokens]`` of the query.

    Returns:
        float32 ``[candidates, tokens]`` of the keys.
    """
    part, weights = masked(query, query_mask)
    own = attention_output(part.q, part.k, part.v, key_weights=weights)
    if weights is not None:
        own = own * weights[:, None]
    q, k, v = part.q.float(), candidates.k.float(), candidates.v.float()
    attention = (q @ k.transpose(3, 4) / q.shape[4] ** 0.5).softmax(dim=-1)
    shares: Tensor = (attention * (own @ v.transpose(3, 4))).sum(dim=(1, 2, 3))
    return shares


def fullest_box(shares: Tensor) -> Fractions | None:
    """Return the box of cells with the largest sum of ``share - 1.25 mean``, as fractions of the grid.

    So it holds most of what lies above the mean in as few cells as possible. Of equal boxes the smallest is taken.

    Args:
        shares: float ``[rows, columns]``; negative ones count as 0.

    Returns:
        None if no share is above 0.
    """
    plain = shares.double().clamp_min(0).cpu().numpy()  # a call of torch costs more than these few numbers
    if not plain.sum() > 0:
        return None
    rows, columns = plain.shape
    (top, bottom), (left, right) = _spans(rows), _spans(columns)
    excess = plain / plain.mean() - (0.0 if (plain == plain[0, 0]).all() else ABOVE)
    sums = np.zeros((rows + 1, columns + 1))
    sums[1:, 1:] = excess.cumsum(0).cumsum(1)
    strips = sums[bottom] - sums[top]
    inside = strips[:, right] - strips[:, left]  # [vertical spans, horizontal spans]
    best = np.argwhere(inside > inside.max() - 1e-9)
    areas = (bottom - top)[best[:, 0]] * (right - left)[best[:, 1]]
    down, across = best[areas.argmin()].tolist()
    y, x = int(top[down]), int(left[across])
    return x / columns, y / rows, (int(right[across]) - x) / columns, (int(bottom[down]) - y) / rows


@cache
def _spans(cells: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where each span of a row of cells begins and ends, ``[spans]`` each."""
    first, last = np.triu_indices(cells + 1, 1)
    return first, last
