"""Weights files that hold only the tensors on which a golden number depends; the others are random when it is read.

The repository keeps these small files in place of whole models. A model loads as ever, and every tensor up to the
layer of the golden numbers is the original one, bit by bit.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

PARTIAL = ".partial.safetensors"


def cut(whole: Path, target: Path, needed: Callable[[str], bool], rows: dict[str, list[int]] | None = None) -> None:
    """Write the tensors that are ``needed`` into ``target``, of those in ``rows`` these rows alone.

    The file's metadata holds the name and shape of every tensor of the whole file.
    """
    rows = rows or {}
    with safe_open(whole, "pt") as file:
        names = list(file.keys())
        shapes = {name: file.get_slice(name).get_shape() for name in names}
        kept = {name: file.get_tensor(name) for name in names if needed(name)}
    kept |= {name: kept[name][chosen].contiguous() for name, chosen in rows.items()}
    save_file(kept, target, {"shapes": json.dumps(shapes), "rows": json.dumps(rows)})


def complete(partial: Path, target: Path) -> None:
    """Write the whole file that was cut, with random numbers in place of what was left out."""
    with safe_open(partial, "pt") as file:
        shapes, rows = (json.loads(file.metadata()[name]) for name in ("shapes", "rows"))
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    generator = torch.Generator().manual_seed(0)
    whole = {}
    for name, shape in shapes.items():
        tensor = _random(name, shape, generator)
        if name in rows:
            tensor[rows[name]] = kept[name]
        whole[name] = kept[name] if name in kept and name not in rows else tensor
    save_file(whole, target, {"format": "pt"})


def _random(name: str, shape: list[int], generator: torch.Generator) -> torch.Tensor:
    """Return numbers of a size at which images still differ after all layers; a norm's weights lie around 1."""
    numbers = torch.randn(shape, generator=generator)
    if len(shape) < 2:
        return 0.3 * numbers + name.endswith("weight")
    return numbers * (3 / math.prod(shape[1:])) ** 0.5
