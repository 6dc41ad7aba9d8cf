"""Compare the storage codecs: bytes, score error, Kendall's tau, overlap of the best four, time to score.

`python -m tests.bench.codecs [--data FOLDER] [--sd15 WEIGHTS]` prints the table alone. The engine scores real
images from the tensors of each codec; the table compares these scores with those from `qkv-float16`.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from index_store.codecs import CODECS, DEFAULT_CODEC, Codec
from index_store.tensors.compression import stored_size
from retrieval.encoding.loaded_models import to_floats
from retrieval.encoding.stored_tensors import DecodeQKV, stored_qkv
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.images.discovery import find_images
from retrieval.models.modes import CELLS_MODES, SD15_MODES, Target
from retrieval.models.projection import LinearProjection
from retrieval.models.protocols import HiddenExtractor, Projection
from retrieval.models.registry import load_extractor
from retrieval.scoring.aas import QKV, Comparison
from retrieval.settings import ModelSettings
from tests.bench.timing import Row, in_turns
from tests.support.reranking import scores_of

QUERIES = 60
SD15_IMAGES = 8
LOGIT_SPREAD = 2.5  # of trained attention, about; that of random weights is near zero, and so would be all differences
TOP = 4
Stored = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Figures:
    """Differences between one codec and qkv-float16 over several queries."""

    bytes_an_image: int
    error: float  # mean absolute difference of scores
    tau: float
    overlap: float  # of the best four


def restore_with(codec: Codec, projection: Projection) -> DecodeQKV:
    """Restore tensors as retrieval.encoding.stored_tensors does, without an index."""
    if not codec.hidden:
        return lambda arrays: stored_qkv(codec.decode(arrays))
    return lambda arrays: projection(codec.decode(arrays)["h"])


def all_scores(query: QKV, stored: Stored, restore: DecodeQKV, target: Target) -> NDArray[np.float32]:
    count = len(next(iter(stored.values())))

    def read(rows: Any) -> Stored:
        return {name: array[rows[0] : rows[-1] + 1] for name, array in stored.items()}

    return scores_of([query], [range(count)], read, Comparison(readout=target.readout), decode=restore)[0]


def kendall(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Kendall's tau-a."""
    agree = np.sign(a[:, None] - a[None]) * np.sign(b[:, None] - b[None])
    return float(agree.sum() / (len(a) * (len(a) - 1)))


def compare(hidden: torch.Tensor, projection: Projection, target: Target, queries: list[int]) -> dict[str, Figures]:
    """Score every query against all other images, by codec; ``hidden`` is ``[images, branches, tokens, width]``."""
    exact = [projection(hidden[i : i + 1]) for i in range(len(hidden))]
    qkv = QKV(*(torch.cat([getattr(one, name) for one in exact]) for name in "qkv"))
    scores: dict[str, list[NDArray[np.float32]]] = {}
    sizes = {}
    for name, codec in CODECS.items():
        stored = codec.encode({"h": hidden.numpy()} if codec.hidden else to_floats(qkv))
        sizes[name] = round(sum(stored_size(list(array)) for array in stored.values()))
        restore = restore_with(codec, projection)
        found = [all_scores(qkv[i : i + 1], stored, restore, target) for i in queries]
        scores[name] = [np.delete(row, i) for row, i in zip(found, queries, strict=True)]
    expected = scores[DEFAULT_CODEC]
    return {name: _figures(sizes[name], expected, found) for name, found in scores.items()}


def _figures(size: int, expected: list[NDArray[np.float32]], found: list[NDArray[np.float32]]) -> Figures:
    pairs = list(zip(expected, found, strict=True))
    best = [[set(np.argsort(-row, kind="stable")[:TOP].tolist()) for row in pair] for pair in pairs]
    return Figures(
        size,
        float(np.mean([np.abs(a - b).mean() for a, b in pairs])),
        float(np.mean([kendall(a, b) for a, b in pairs])),
        float(np.mean([len(a & b) / TOP for a, b in best])),
    )


def hidden_of(extractor: HiddenExtractor, files: list[Path], targets: list[Target], draft: int | None) -> Any:
    """Return the layer input of the images for every target, float32 on the CPU."""
    parts: dict[Target, list[torch.Tensor]] = {target: [] for target in targets}
    for path in files:
        pixels = extractor.prepare(read_image(path, DecodeRules(draft=draft))[0])[None]
        for target, hidden in extractor.hidden(pixels, targets, "gallery").items():
            parts[target].append(hidden.float().cpu())
    return {target: torch.cat(tensors) for target, tensors in parts.items()}


def load(settings: ModelSettings) -> HiddenExtractor:
    extractor = load_extractor(settings, torch.device("cpu"), offline=True)
    assert isinstance(extractor, HiddenExtractor)
    return extractor


def mini_rows(data: Path) -> Iterator[Row]:
    """Compare all images of a folder in every mode of cells."""
    files = list(find_images([data]).files)
    extractor = load(ModelSettings(model="cells"))
    hidden = hidden_of(extractor, files, [mode.target for mode in CELLS_MODES.values()], draft=224)
    queries = list(range(0, len(files), max(1, len(files) // QUERIES)))
    for name, mode in CELLS_MODES.items():
        figures = compare(hidden[mode.target], extractor.projection(mode.target), mode.target, queries)
        yield from table(f"cells, {name}, {len(files)} images, {len(queries)} queries", figures)


def sd15_rows(data: Path, weights: Path) -> Iterator[Row]:
    """Compare images with SD 1.5 at its real size in mode style; the weights may be random."""
    listed = list(find_images([data]).files)
    files = listed[:: max(1, len(listed) // SD15_IMAGES)][:SD15_IMAGES]
    target = SD15_MODES["style"].target
    extractor = load(ModelSettings(model="sd15", weights=str(weights), noise="shared", encoders={}))
    hidden = hidden_of(extractor, files, [target], None)[target]
    projection = extractor.projection(target).to("cpu")
    assert isinstance(projection, LinearProjection)
    figures = compare(hidden, spread(projection, hidden[:2]), target, list(range(len(files))))
    yield from table(f"sd15 at its real size, random, {len(files)} images", figures)


@torch.inference_mode()
def spread(projection: LinearProjection, hidden: torch.Tensor) -> LinearProjection:
    """Scale queries and keys so that their logits have the standard deviation of trained attention."""
    found = projection(hidden)
    logits = found.q @ found.k.transpose(-1, -2) / found.q.shape[-1] ** 0.5
    factor = float(LOGIT_SPREAD / logits.std()) ** 0.5
    q, k, v = projection.weights
    return LinearProjection((factor * q, factor * k, v), projection.biases)


def table(what: str, figures: Mapping[str, Figures]) -> Iterator[Row]:
    """Return one row for each codec."""
    for codec, f in figures.items():
        note = f"mean score error {f.error:.1e}, tau {f.tau:.4f}, top-{TOP} overlap {f.overlap:.4f}"
        yield f"{what}: {codec}", f"{f.bytes_an_image / 1e3:.1f} kB", note


def time_rows(device: str) -> list[Row]:
    """Time the scores of 100 images of SD 1.5's size from each codec, on random tensors."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn((100, 2, 256, 1280), generator=generator)
    weights = [torch.randn((8, 160, 1280), generator=generator) / 1280**0.5 for _ in range(3)]
    projection = LinearProjection((weights[0], weights[1], weights[2])).to(device)
    target = SD15_MODES["style"].target
    query = projection(hidden[:1].to(device))
    variants: dict[str, Callable[[], object]] = {}
    for name, codec in CODECS.items():
        qkv = QKV(*(torch.cat([getattr(projection(h.to(device)), n) for h in hidden.split(10)]) for n in "qkv"))
        stored = codec.encode({"h": hidden.numpy()} if codec.hidden else to_floats(qkv))
        restore = restore_with(codec, projection)
        variants[name] = partial(all_scores, query, stored, restore, target)
    times = in_turns(variants, rounds=3)
    first = times[DEFAULT_CODEC]
    return [
        (f"re-rank 100 SD 1.5 candidates, two branches: {name}", f"{ms:.0f} ms", f"{ms / first:.2f} x {DEFAULT_CODEC}")
        for name, ms in times.items()
    ]


def codec_rows(device: str, data: Path | None, weights: Path | None) -> list[Row]:
    """Return all rows that the given images and weights allow; without images, only the time to score."""
    rows = time_rows(device)
    if data is not None and data.is_dir():
        rows += mini_rows(data)
        rows += sd15_rows(data, weights) if weights else []
    return rows


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """--data, or $DIFFSIM_DATA: a folder of real images."""
    named = os.environ.get("DIFFSIM_DATA")
    parser.add_argument("--data", type=Path, default=Path(named) if named else None, help="a folder of real images")
    parser.add_argument("--sd15", type=Path, help="weights of Stable Diffusion 1.5 at its real size")


if __name__ == "__main__":
    torch.set_num_threads(1)
    options = argparse.ArgumentParser(description=__doc__)
    add_data_option(options)
    asked = options.parse_args()
    for row in codec_rows("cpu", asked.data, asked.sd15):
        print("| " + " | ".join(row) + " |", flush=True)
