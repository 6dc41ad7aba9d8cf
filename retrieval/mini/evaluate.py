"""Measure the embedded model: ``python -m retrieval.mini.evaluate FOLDER [--json FILE]``.

FOLDER holds image sets by name (see :data:`SETS`); those that are missing are left out, and each is taken alone,
leave-one-out. ``--procedural`` measures on the procedural world instead: there, and only there, constants are chosen.
Printed is one table of the modes, and one of what the parts contribute to the mode that suits a set.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from retrieval.aas import QKV
from retrieval.backbones import EXTRACTORS, load_embedder
from retrieval.backbones.mini import MiniExtractor, load_network
from retrieval.mini import datasets
from retrieval.mini.baselines import BASELINES
from retrieval.mini.datasets import Groups, Images, Triplets
from retrieval.mini.measures import Matrix, measure, triplet_accuracy
from retrieval.mini.objective import directed
from retrieval.mini.unet import MiniUNet, UNetShape
from retrieval.modes import MINI_MODES, Target
from retrieval.vocabulary import LINEAR, Readout, WorldKind

Loaded = Groups | Triplets
Scorer = Callable[[Images], Matrix]
IMAGE_SIZE = EXTRACTORS["mini"].image_size
BATCH = 32
CHUNK = 4  # queries scored at once against a whole set

SETS: Mapping[str, str] = {  # and the mode that suits each
    "style_styledrop": "style",
    "style_wikiart": "style",
    "instance_dreambooth": "instance",
    "ip_dreambenchpp": "instance",
    "human_nights": "semantic",
    "lowlevel_live": "style",
    "semantic_coco": "semantic",
    "semantic_imagenet": "semantic",
}
TRIPLETS: Mapping[str, str] = {"human_nights": "votes", "lowlevel_live": "levels"}  # sets that are no groups
UNET_LAYER = {"style": "D_2", "instance": "M", "semantic": "M"}  # those that training aligns, see mini.train
UNET_TIMESTEP = 50
WORLDS: tuple[WorldKind, ...] = ("style", "instance", "layout")


@dataclass(frozen=True)
class Figures:
    """What one method reaches on one set: mAP, top-1 and triplets of groups, or triplets alone, in percent."""

    triplets: float
    mean_average_precision: float | None = None
    top1: float | None = None
    unselected: float | None = None  # the triplets of human votes that nobody selected

    @property
    def headline(self) -> float:
        """The figure that the tables show."""
        return self.triplets if self.mean_average_precision is None else self.mean_average_precision


def load_sets(folder: Path) -> Iterator[tuple[str, str, Loaded]]:
    """Yield name, mode and images of every set in ``folder``, and of the copies that its mode is tested on."""
    for name, mode in SETS.items():
        if not (folder / name).is_dir():
            continue
        if name in TRIPLETS:
            yield name, mode, datasets.load_triplets(folder / name, TRIPLETS[name])
        else:
            groups = datasets.load_groups(folder / name)
            yield name, mode, groups
            if mode == "style":
                yield f"{name}, grey", mode, replace(groups, images=datasets.grey(groups.images))
            if mode == "instance":
                yield f"{name}, off centre", mode, datasets.off_centre(groups)


def procedural_sets(groups: int = 32, views: int = 4, seed: int = 20_001) -> Iterator[tuple[str, str, Loaded]]:
    """Yield procedural sets; no training batch has their seeds."""
    for number, kind in enumerate(WORLDS):
        mode = "semantic" if kind == "layout" else kind
        made = datasets.procedural(kind, groups, views, 10**12 + seed + number)
        yield f"procedural {kind}", mode, made
        yield f"procedural {kind}, grey", mode, replace(made, images=datasets.grey(made.images))


def score_pairs(tensors: QKV, readout: Readout) -> Matrix:
    """Score every image of a set with every other one: ``[n, n]``, symmetric, by the formula of the index."""
    rows = [directed(tensors[i : i + CHUNK], tensors, readout) for i in range(0, len(tensors), CHUNK)]
    there: Matrix = torch.cat(rows).double().numpy()
    return (there + there.T) / 2


def extract_all(extractor: MiniExtractor, images: Images, target: Target) -> QKV:
    """Extract a whole set in float32."""
    pixels = datasets.resized(images, extractor.image_size)
    parts = [
        extractor.extract(pixels[i : i + BATCH], [target], "gallery")[target] for i in range(0, len(pixels), BATCH)
    ]
    return QKV(*(torch.cat([getattr(part, name) for part in parts]) for name in ("q", "k", "v")))


def scorer(extractor: MiniExtractor, target: Target) -> Scorer:
    """Return a target's scores as a function of images."""
    return lambda images: score_pairs(extract_all(extractor, images, target), target.readout)


def pooled(encoder: str) -> Scorer:
    """Return the coarse vectors' scores as a function of images."""
    embedder = load_embedder(encoder, None, torch.device("cpu"), offline=True)

    def score(images: Images) -> Matrix:
        prepared = np.stack([embedder.prepare(Image.fromarray(image)) for image in images])
        vectors = embedder.embed(prepared).astype(np.float64)
        scores: Matrix = vectors @ vectors.T
        return scores

    return score


def parts(mode: str, model: MiniExtractor, networks: Mapping[str, MiniExtractor]) -> dict[str, Scorer]:
    """Return what a mode is made of, and what could stand in its place, as rows of the table."""
    target = MINI_MODES[mode].target
    assert target.values is not None
    alike = replace(target, values=replace(target.values, contrast=0.0))
    rows: dict[str, Scorer] = {
        **BASELINES,
        **{f"coarse vector '{name}'": pooled(name) for name in ("descriptor", "subject")},
        "cells, all alike": scorer(model, alike),
        "cells": scorer(model, target),
    }
    layer = replace(target, layer=UNET_LAYER[mode], timestep=UNET_TIMESTEP)
    for name, network in networks.items():
        rows[f"{name} alone"] = scorer(network, replace(layer, values=None, readout=LINEAR))
        rows[f"{name}'s Q and K, cells' V"] = scorer(network, layer)
    return rows


def evaluate(loaded: Loaded, score: Scorer) -> Figures:
    """Measure one method on one set."""
    similarity = score(loaded.images)
    if isinstance(loaded, Groups):
        found = measure(similarity, loaded.labels)
        return Figures(found.triplets, found.mean_average_precision, found.top1)
    accuracy = triplet_accuracy(similarity, loaded.triplets)
    if not loaded.unselected.any():
        return Figures(accuracy)
    return Figures(accuracy, unselected=triplet_accuracy(similarity, loaded.triplets[loaded.unselected]))


def make_extractors(weights: Path | None) -> tuple[MiniExtractor, dict[str, MiniExtractor]]:
    """Return the shipped model; and the model with trained and with random networks, where there are ``weights``."""
    cpu = torch.device("cpu")
    if weights is None:
        return MiniExtractor(cpu, IMAGE_SIZE, 0, "shared"), {}
    torch.manual_seed(0)
    networks = {"UNet": load_network(weights), "random UNet": MiniUNet(UNetShape()).eval().requires_grad_(False)}
    extractors = {name: MiniExtractor(cpu, IMAGE_SIZE, 0, "shared", network) for name, network in networks.items()}
    return extractors["UNet"], extractors


@torch.inference_mode()
def run(
    sets: Iterator[tuple[str, str, Loaded]], weights: Path | None, report: Callable[[str], None]
) -> dict[str, dict[str, Figures]]:
    """Measure all methods and modes on all sets: figures by set and method."""
    model, networks = make_extractors(weights)
    modes = {f"mode {mode.name}": scorer(model, mode.target) for mode in MINI_MODES.values()}
    table: dict[str, dict[str, Figures]] = {}
    for name, mode, loaded in sets:
        table[name] = {row: evaluate(loaded, s) for row, s in {**modes, **parts(mode, model, networks)}.items()}
        report(f"{name} ({mode}, {len(loaded.images)} images)")
        for row, figures in table[name].items():
            report(f"  {row:32s}" + "".join(f"{value:8.1f}" for value in asdict(figures).values() if value is not None))
    return table


def markdown(table: Mapping[str, Mapping[str, Figures]]) -> str:
    """Lay the headline figures out, one column a set."""
    rows = list(next(iter(table.values())))
    lines = ["| | " + " | ".join(table) + " |", "|---" * (len(table) + 1) + "|"]
    lines += [f"| {row} | " + " | ".join(f"{table[name][row].headline:.1f}" for name in table) + " |" for row in rows]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m retrieval.mini.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder of image sets")
    parser.add_argument("--procedural", action="store_true", help="measure on the procedural world")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--weights", type=Path, help="folder of a trained UNet: adds the rows that need one")
    asked = parser.parse_args(arguments)
    if (asked.folder is None) == (not asked.procedural):
        parser.error("name a folder of image sets, or --procedural")
    table = run(procedural_sets() if asked.procedural else load_sets(asked.folder), asked.weights, print)
    if not table:
        parser.error(f"no image set in {asked.folder}; known: {', '.join(SETS)}")
    print(markdown(table))
    if asked.json:
        plain = {name: {row: asdict(f) for row, f in rows.items()} for name, rows in table.items()}
        asked.json.write_text(json.dumps(plain, indent=1) + "\n")


if __name__ == "__main__":
    main()
