"""Fit an encoder to people's choices of two: LoRA by DreamSim's published loss and settings (Fu et al., 2023).

For a reference, the image that people found nearer and the other, with ``d = 1 - cosine``::

    L = mean(max(0, margin - (d(reference, farther) - d(reference, nearer))))

The result is a folder that is an encoder like any other (the adapter merged into the weights), with the adapter
alone beside it. DreamSim adapts one fused ``qkv`` projection a block; transformers keeps three, and each gets its own.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval.errors import DependencyError, UsageError
from retrieval.evaluation.benchmarks.nights import read_nights
from retrieval.evaluation.feature_store import Progress, silent
from retrieval.evaluation.triplets import Triplet, read_csv, read_triplets
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.models.protocols import Pixels
from retrieval.models.registry import describe_embedder
from retrieval.models.vit.pooled import ViTEmbedder

ADAPTER = "adapter"
LEAST_VOTES = 6  # of a row of NIGHTS
# The projections of CLIP, of DINOv2 in transformers 5, and of DINOv2 before.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "query", "key", "value")


@dataclass(frozen=True)
class TuneSettings:
    """DreamSim's configuration ``train_single_model_lora``."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.2
    learning_rate: float = 3e-4
    batch_size: int = 32
    epochs: int = 8
    margin: float = 0.05
    seed: int = 1234

    def __post_init__(self) -> None:
        if min(self.rank, self.alpha, self.batch_size, self.epochs) < 1 or self.learning_rate <= 0:
            raise UsageError("rank, alpha, batch size and epochs must be at least 1, and the learning rate above 0")


@dataclass(frozen=True)
class Tuned:
    """What a tuning did. Shares of triplets that are right (2AFC), ties counting half."""

    before: float
    after: float
    count: int  # triplets that both shares are of
    trained: int  # triplets that were learnt from
    parameters: int  # trainable numbers
    losses: tuple[float, ...]  # the mean of each epoch


def check_tunable(encoder: str) -> None:
    """Raise a UsageError unless ``encoder`` has weights to tune."""
    if describe_embedder(encoder).loader.partition(":")[0] != ViTEmbedder.__module__:
        raise UsageError(f"{encoder} has no weights to tune; clip and dinov2 have")


def tune(
    embedder: ViTEmbedder,
    train: Sequence[Triplet],
    held_out: Sequence[Triplet],
    out: Path,
    settings: TuneSettings | None = None,
    progress: Progress = silent,
) -> Tuned:
    """Fit ``embedder`` to ``train`` and write the encoder to ``out``; measure both on ``held_out``.

    Raises:
        DependencyError: peft is not installed.
        UsageError: no triplets, or ``out`` exists already.
    """
    how = settings or TuneSettings()
    if not train or not held_out:
        raise UsageError("tuning needs triplets to learn from and others to measure with")
    if out.exists():
        raise UsageError(f"{out} exists already: name a new folder for the tuned encoder")
    torch.manual_seed(how.seed)
    pixels = _prepare(embedder, [*train, *held_out])
    before = two_afc(embedder, held_out, pixels)
    adapted = _with_adapter(embedder.model, how)
    student = replace(embedder, model=adapted)
    losses = tuple(_fit(student, train, pixels, how, progress))
    adapted.eval()
    after = two_afc(student, held_out, pixels)
    parameters = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    tuned = Tuned(before, after, len(held_out), len(train), parameters, losses)
    _save(adapted, embedder, out, how, tuned)
    return tuned


def read_tuning_triplets(file: Path, seed: int) -> tuple[list[Triplet], list[Triplet]]:
    """Return triplets to learn from and to measure with.

    NIGHTS's data.csv gives its splits train and val, rows of six votes or more, as DreamSim uses them. Of a CSV of
    one's own (reference, nearer, farther) a fifth of the references is held out with all their triplets.

    Raises:
        UsageError: see :func:`retrieval.evaluation.triplets.read_triplets`; or one reference only.
    """
    if file.is_file() and "ref_path" in read_csv(file, ())[0][1]:
        return read_nights(file, "train", LEAST_VOTES), read_nights(file, "val", LEAST_VOTES)
    triplets = read_triplets(file)
    references = sorted({triplet.reference for triplet in triplets})
    if len(references) < 2:
        raise UsageError(f"{file} has one reference only: two or more are needed, so that some can be held out")
    kept = set(random.Random(seed).sample(references, max(1, len(references) // 5)))
    return [t for t in triplets if t.reference not in kept], [t for t in triplets if t.reference in kept]


def hinge(reference: Tensor, nearer: Tensor, farther: Tensor, margin: float) -> Tensor:
    """Return the published loss of a batch of vectors of norm 1, each ``[triplets, dim]``: a number."""
    gap = (reference * nearer).sum(dim=1) - (reference * farther).sum(dim=1)  # d(farther) - d(nearer)
    return (margin - gap).clamp_min(0).mean()


def two_afc(embedder: ViTEmbedder, triplets: Sequence[Triplet], pixels: dict[Path, Pixels]) -> float:
    """Return the share of ``triplets`` that the embedder gets right, ties counting half."""
    paths = sorted({path for t in triplets for path in (t.reference, t.nearer, t.farther)})
    rows = {path: row for row, path in enumerate(paths)}
    batches = [paths[at : at + 32] for at in range(0, len(paths), 32)]
    vectors = np.concatenate([embedder.embed(np.stack([pixels[path] for path in batch])) for batch in batches])
    a, b, c = (vectors[[rows[getattr(t, side)] for t in triplets]] for side in ("reference", "nearer", "farther"))
    return float(((np.sign((a * b).sum(axis=1) - (a * c).sum(axis=1)) + 1) / 2).mean())


def _prepare(embedder: ViTEmbedder, triplets: Sequence[Triplet]) -> dict[Path, Pixels]:
    paths = {path for t in triplets for path in (t.reference, t.nearer, t.farther)}
    return {path: embedder.prepare(read_image(path, DecodeRules())[0]) for path in sorted(paths)}


def _with_adapter(model: Any, how: TuneSettings) -> Any:
    try:
        import peft
    except ImportError as error:
        raise DependencyError(
            "peft is not installed, which tuning needs: pip install 'diffsim-retrieval[tune]'"
        ) from error
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    config = peft.LoraConfig(
        r=how.rank,
        lora_alpha=how.alpha,
        lora_dropout=how.dropout,
        bias="none",
        target_modules=[name for name in PROJECTIONS if name in names],
    )
    return peft.get_peft_model(model, config)


def _fit(
    student: ViTEmbedder,
    triplets: Sequence[Triplet],
    pixels: dict[Path, Pixels],
    how: TuneSettings,
    progress: Progress,
) -> Iterator[float]:
    weights = [p for p in student.model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=how.learning_rate, betas=(0.5, 0.999), weight_decay=0)
    chance = random.Random(how.seed)
    student.model.train()
    for epoch in range(1, how.epochs + 1):
        order = chance.sample(list(triplets), len(triplets))
        total = 0.0
        for start in range(0, len(order), how.batch_size):
            batch = order[start : start + how.batch_size]
            sides = [[getattr(t, side) for t in batch] for side in ("reference", "nearer", "farther")]
            vectors = student.vectors(np.stack([pixels[path] for paths in sides for path in paths]))
            reference, nearer, farther = vectors.chunk(3)
            loss = hinge(reference, nearer, farther, how.margin)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach()) * len(batch)
            progress(f"epoch {epoch} of {how.epochs}", min(start + how.batch_size, len(order)), len(order))
        yield total / len(order)


def _save(adapted: Any, embedder: ViTEmbedder, out: Path, how: TuneSettings, tuned: Tuned) -> None:
    adapted.save_pretrained(out / ADAPTER)
    adapted.merge_and_unload().save_pretrained(out)
    rules = embedder.preprocessing
    stated = {
        "size": {"shortest_edge": rules.shortest},
        "crop_size": {"height": rules.crop, "width": rules.crop},
        "image_mean": list(rules.mean),
        "image_std": list(rules.std),
    }
    (out / "preprocessor_config.json").write_text(json.dumps(stated, indent=2), "utf-8")
    told = {"settings": asdict(how), "result": asdict(tuned)}
    (out / "tuning.json").write_text(json.dumps(told, indent=2), "utf-8")
