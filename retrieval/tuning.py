"""Fit an encoder to people's choices between two images: LoRA with DreamSim's loss and settings (Fu et al., 2023).

With ``d = 1 - cosine``, the loss of a batch of triplets is::

    L = mean(max(0, margin - (d(reference, farther) - d(reference, nearer))))

The result is a folder with an ordinary encoder (the adapter merged into the weights) and the adapter alone in a
subfolder. DreamSim adapts one fused ``qkv`` projection in each block; transformers has three, and each gets its own.
"""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval.errors import DependencyError, UsageError
from retrieval.evaluation.benchmarks.nights import read_nights
from retrieval.evaluation.triplets import Triplet, read_csv, read_triplets
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.images.preprocessing import Preprocessing
from retrieval.models.protocols import Pixels
from retrieval.models.registry import describe_embedder
from retrieval.models.vit.pooled import ViTEmbedder
from retrieval.progress import Cancellation, OnProgress, Progress, ignore_progress

ADAPTER = "adapter"
LEAST_VOTES = 6  # rows of NIGHTS with fewer votes are left out
# The names in CLIP and in DINOv2 of transformers 5, then those in DINOv2 before.
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
            raise UsageError("rank, alpha, batch size and epochs must be at least 1, the learning rate above 0")


@dataclass(frozen=True)
class Tuned:
    """The result of a tuning; ``before`` and ``after`` are 2AFC: shares of right triplets, a tie counting half."""

    before: float
    after: float
    count: int  # held-out triplets, which both shares are measured on
    trained: int  # triplets for training
    parameters: int  # trainable numbers
    losses: tuple[float, ...]  # mean loss of each epoch


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
    on_progress: OnProgress = ignore_progress,
    cancel: Cancellation | None = None,
) -> Tuned:
    """Fit ``embedder`` to ``train`` and write the tuned encoder to ``out``; ``held_out`` measures both encoders.

    Raises:
        DependencyError: peft is not installed.
        UsageError: no triplets, or ``out`` exists already.
        CancelledError: the work was asked to stop; nothing is written.
    """
    how = settings or TuneSettings()
    if not train or not held_out:
        raise UsageError("tuning needs triplets for training and others for measuring")
    if out.exists():
        raise UsageError(f"{out} exists already: name a new folder for the tuned encoder")
    pixels = _prepare(embedder, [*train, *held_out])
    before = two_afc(embedder, held_out, pixels)
    with _seeded(how.seed):
        adapted = _with_adapter(embedder.model, how)
        student = replace(embedder, model=adapted)
        losses = tuple(_fit(student, train, pixels, how, _checking(on_progress, cancel)))
    adapted.eval()
    after = two_afc(student, held_out, pixels)
    parameters = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    tuned = Tuned(before, after, len(held_out), len(train), parameters, losses)
    _save(adapted, embedder, out, how, tuned)
    return tuned


def read_tuning_triplets(file: Path, seed: int) -> tuple[list[Triplet], list[Triplet]]:
    """Return triplets for training and triplets for measuring.

    The data.csv of NIGHTS gives its splits train and val, without rows of fewer than six votes, as in DreamSim. Any
    other CSV (reference, nearer, farther) is split by references: a fifth of them is held out with all their triplets.

    Raises:
        UsageError: a file that :func:`retrieval.evaluation.triplets.read_triplets` refuses, or only one reference.
    """
    if file.is_file() and "ref_path" in read_csv(file, ())[0][1]:
        return read_nights(file, "train", LEAST_VOTES), read_nights(file, "val", LEAST_VOTES)
    triplets = read_triplets(file)
    references = sorted({triplet.reference for triplet in triplets})
    if len(references) < 2:
        raise UsageError(f"{file} has one reference only: two or more are needed, so that one can be held out")
    kept = set(random.Random(seed).sample(references, max(1, len(references) // 5)))
    return [t for t in triplets if t.reference not in kept], [t for t in triplets if t.reference in kept]


def hinge(reference: Tensor, nearer: Tensor, farther: Tensor, margin: float) -> Tensor:
    """Return the loss ``[]`` of a batch of vectors of norm 1, each ``[triplets, dim]``; see the module."""
    gap = (reference * nearer).sum(dim=1) - (reference * farther).sum(dim=1)  # d(farther) - d(nearer)
    return (margin - gap).clamp_min(0).mean()


def two_afc(embedder: ViTEmbedder, triplets: Sequence[Triplet], pixels: dict[Path, Pixels]) -> float:
    """Return the share of ``triplets`` that the embedder gets right; a tie counts half."""
    paths = sorted({path for t in triplets for path in (t.reference, t.nearer, t.farther)})
    rows = {path: row for row, path in enumerate(paths)}
    batches = [paths[at : at + 32] for at in range(0, len(paths), 32)]
    vectors = np.concatenate([embedder.embed(np.stack([pixels[path] for path in batch])) for batch in batches])
    a, b, c = (vectors[[rows[getattr(t, side)] for t in triplets]] for side in ("reference", "nearer", "farther"))
    return float(((np.sign((a * b).sum(axis=1) - (a * c).sum(axis=1)) + 1) / 2).mean())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators for a while, and restore them.

    peft's initial weights and dropout take no generator of their own.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _checking(on_progress: OnProgress, cancel: Cancellation | None) -> OnProgress:
    """Return a listener that ends the work if it was cancelled."""

    def listen(progress: Progress) -> None:
        if cancel is not None:
            cancel.check()
        on_progress(progress)

    return listen


def _prepare(embedder: ViTEmbedder, triplets: Sequence[Triplet]) -> dict[Path, Pixels]:
    paths = {path for t in triplets for path in (t.reference, t.nearer, t.farther)}
    return {path: embedder.prepare(read_image(path, DecodeRules())[0]) for path in sorted(paths)}


def _with_adapter(model: Any, how: TuneSettings) -> Any:
    try:
        import peft
    except ImportError as error:
        raise DependencyError(
            "tuning needs the package peft, which is not installed: pip install 'diffsim-retrieval[tune]'"
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
    on_progress: OnProgress,
) -> Iterator[float]:
    """Train ``student`` in place, and yield the mean loss of each epoch."""
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
            done = min(start + how.batch_size, len(order))
            on_progress(Progress("triplets", done, len(order), note=f"epoch {epoch} of {how.epochs}"))
        yield total / len(order)


def _save(adapted: Any, embedder: ViTEmbedder, out: Path, how: TuneSettings, tuned: Tuned) -> None:
    adapted.save_pretrained(out / ADAPTER)
    adapted.merge_and_unload().save_pretrained(out)
    rules = embedder.preprocessing
    assert isinstance(rules, Preprocessing)  # of clip and dinov2, which alone are tuned
    stated = {
        "size": {"shortest_edge": rules.shortest},
        "crop_size": {"height": rules.crop, "width": rules.crop},
        "image_mean": list(rules.mean),
        "image_std": list(rules.std),
    }
    (out / "preprocessor_config.json").write_text(json.dumps(stated, indent=2), "utf-8")
    record = {"settings": asdict(how), "result": asdict(tuned)}
    (out / "tuning.json").write_text(json.dumps(record, indent=2), "utf-8")
