"""Readouts, and values that heads share, against the formula in float64 numpy."""

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from retrieval.scoring.aas import QKV, Comparison, aligned_attention_scores
from retrieval.types import LINEAR, Readout
from tests.support.reference import attention

ROOT = Readout(root=True, floor=1e-3)


def tensors(items: int, value_heads: int, seed: int) -> QKV:
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(items, 2, 3, 10, 8, generator=generator) for _ in range(2))
    return QKV(q, k, torch.randn(items, 2, value_heads, 10, 6, generator=generator).abs())


def expected(a: QKV, b: QKV, readout: Readout) -> float:
    """The mean of both directions of one pair, in float64."""
    (qa, ka, va), (qb, kb, vb) = (
        tuple(t[0].double().numpy() for t in (x.q, x.k, x.v.expand(-1, -1, 3, -1, -1))) for x in (a, b)
    )

    def directed(own: np.ndarray, cross: np.ndarray) -> float:
        if readout.root:
            own, cross = (np.sqrt(np.maximum(x, 0) + readout.floor) for x in (own, cross))
        own, cross = own.ravel(), cross.ravel()
        return float(own @ cross / np.sqrt((own @ own) * (cross @ cross)))

    there = directed(attention(qa, ka, va), attention(qa, kb, vb))
    return (there + directed(attention(qb, kb, vb), attention(qb, ka, va))) / 2


@pytest.mark.parametrize("readout", [LINEAR, ROOT, Readout(root=True)])
@pytest.mark.parametrize("value_heads", [1, 3])
def test_scores_follow_the_formula(readout: Readout, value_heads: int) -> None:
    query, candidates = tensors(1, value_heads, 1), tensors(5, value_heads, 2)
    found = aligned_attention_scores(query, candidates, Comparison(readout=readout))
    wanted = [expected(query, candidates[i : i + 1], readout) for i in range(5)]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=2e-6)


def test_the_published_readout_is_the_default() -> None:
    query, candidates = tensors(1, 3, 1), tensors(5, 3, 2)
    plain = aligned_attention_scores(query, candidates)
    assert Comparison() == Comparison(readout=LINEAR)

    def output(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return scaled_dot_product_attention(*(t.flatten(0, 1) for t in (q, k, v))).reshape(len(v), -1)

    def cosine(own: torch.Tensor, cross: torch.Tensor) -> torch.Tensor:
        norms = own.square().sum(dim=1) * cross.square().sum(dim=1)
        return (own * cross).sum(dim=1) / norms.sqrt()

    q, k, v = (t.expand(5, -1, -1, -1, -1) for t in (query.q, query.k, query.v))
    there = cosine(output(query.q, query.k, query.v).expand(5, -1), output(q, candidates.k, candidates.v))
    back = cosine(output(candidates.q, candidates.k, candidates.v), output(candidates.q, k, v))
    torch.testing.assert_close(plain, torch.stack([there, back]).mean(dim=0), rtol=1e-5, atol=1e-6)


def test_a_root_needs_no_value_above_zero() -> None:
    query, candidates = (QKV(x.q, x.k, 0 * x.v) for x in (tensors(1, 1, 1), tensors(2, 1, 2)))
    found = aligned_attention_scores(query, candidates, Comparison(readout=Readout(root=True)))
    assert torch.equal(found, torch.zeros(2))


def test_values_have_one_head_or_all() -> None:
    with pytest.raises(ValueError, match="one head"):
        QKV(torch.zeros(1, 1, 4, 9, 8), torch.zeros(1, 1, 4, 9, 8), torch.zeros(1, 1, 2, 9, 8))
