"""Exact re-ranking: our scores beside the published loop, the same arithmetic compiled, and MaxSim for the scale.

All of them get the same tensors in memory, as float32 or as stored float16. MaxSim is another, cheaper score (one
product of tokens, no values); it gets as many tokens and the same width, and its figure says what a product costs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention

from retrieval.scoring.aas import QKV, aligned_attention_scores, own_output
from tests.bench.peers.tables import installed, interleaved, keep
from tests.bench.published import published_loop

# name: candidates, branches, heads, tokens, width of a head in q and k, and in v; one head's queries are its keys
SHAPES = {
    "sd15, both branches": (100, 2, 8, 256, 160, 160),
    "mini, style": (200, 1, 1, 36, 272, 486),
    "mini, instance": (200, 1, 1, 49, 320, 320),
}
BYTES_A_STEP, COMPILED = 8 << 20, "the same at once, torch.compile"
COLUMNS = ("tensors", "threads", "way", "ms", "times the published loop", "largest difference")


def batched(query: QKV, candidates: QKV) -> Tensor:
    """The published arithmetic for all candidates at once, as plainly as it can be written."""
    many = len(candidates)
    q, k, v = (t.expand(many, -1, -1, -1, -1).flatten(0, 1) for t in (query.q, query.k, query.v))
    qs, ks, vs = (t.flatten(0, 1) for t in (candidates.q, candidates.k, candidates.v))
    attention = scaled_dot_product_attention
    pairs = (attention(q, k, v), attention(q, ks, vs)), (attention(qs, ks, vs), attention(qs, k, v))
    there, back = (cosine_similarity(a.reshape(many, -1), b.reshape(many, -1), dim=1) for a, b in pairs)
    return (there + back) / 2


def _tensors(shape: tuple[int, ...], items: int) -> QKV:
    _, branches, heads, tokens, width, of_values = shape
    generator = torch.Generator().manual_seed(items)
    q, k = (torch.randn(items, branches, heads, tokens, width, generator=generator) for _ in "qk")
    k = q if heads == 1 else k
    return QKV(q, k, torch.randn(items, branches, heads, tokens, of_values, generator=generator))


def _steps(candidates: QKV) -> list[slice]:
    row = 4 * sum(t[0].numel() for t in (candidates.q, candidates.k, candidates.v))
    size = max(1, BYTES_A_STEP // row)
    return [slice(at, at + size) for at in range(0, len(candidates), size)]


def _ways(query: QKV, candidates: QKV) -> dict[str, Callable[[], Any]]:
    steps, halves = _steps(candidates), candidates.to("cpu", torch.float16)
    mine, owns = own_output(query), [own_output(candidates[step]) for step in steps]
    compiled = torch.compile(batched, dynamic=False)

    def ours() -> Tensor:
        return torch.cat([aligned_attention_scores(query, candidates[step], query_own=mine) for step in steps])

    def with_own() -> Tensor:
        each = zip(steps, owns, strict=True)
        return torch.cat(
            [aligned_attention_scores(query, candidates[s], query_own=mine, candidates_own=own) for s, own in each]
        )

    def from_halves() -> Tensor:
        each = (halves[step].to("cpu", torch.float32) for step in steps)
        return torch.cat([aligned_attention_scores(query, some, query_own=mine) for some in each])

    return {
        "published loop": lambda: published_loop(query, candidates),
        "ours": ours,
        "ours, own outputs kept": with_own,
        "ours, from float16": from_halves,
        COMPILED: lambda: compiled(query, candidates),
    }


def _maxsim(query: QKV, candidates: QKV) -> dict[str, Callable[[], Any]]:
    """MaxSim over as many tokens, of the first branch and head alone."""
    if not installed("maxsim-cpu"):
        return {}
    import maxsim_cpu

    ask = np.ascontiguousarray(query.q[0, 0, 0].numpy())
    documents = np.ascontiguousarray(candidates.k[:, 0, 0].numpy())
    return {"MaxSim, maxsim-cpu (another score)": lambda: maxsim_cpu.maxsim_scores(ask, documents)}


@torch.inference_mode()
def run(quick: bool, out: Path, rounds: int) -> None:
    """Measure every shape, on one thread and on all."""
    rows: list[dict[str, Any]] = []
    everything = torch.get_num_threads()
    for name, shape in SHAPES.items():
        query, candidates = _tensors(shape, 1), _tensors(shape, shape[0] // (10 if quick else 1))
        for threads in sorted({1, everything}):
            torch.set_num_threads(threads)
            ways = {**_ways(query, candidates), **_maxsim(query, candidates)}
            if threads < everything:
                del ways[COMPILED]  # it compiles for half a minute, so it has one number of threads
            right = published_loop(query, candidates)
            found = {way: ways[way]() for way in ways if "another" not in way}
            times = interleaved(ways, rounds)
            rows += [
                {
                    "tensors": f"{len(candidates)} x {name}",
                    "threads": threads,
                    "way": way,
                    "ms": spread,
                    "times the published loop": times["published loop"].median / spread.median,
                    "largest difference": float((found[way] - right).abs().max()) if way in found else None,
                }
                for way, spread in times.items()
            ]
    torch.set_num_threads(everything)
    keep(out, "rerank", COLUMNS, rows, tensors="random, in memory, float32 unless said")
