"""Make the numbers of mini that are computed once: ``retrieval/models/mini/learnt.npz``.

``meaning [320, 320]``: a map of the network's last features. Its first part is the fourth root of the classifier's
metric: the inner product of two features' class logits, before ReLU6. Its second takes out the 15 directions in which
the mean drawings of 16 styles differ then. ``centre [214]``: the mean roots of the histograms of cells of the drawings.
They are the sample images with other seeds than the demo's.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

import retrieval.models.mini as mini
from retrieval.models.mini.attention import mini_on
from retrieval.models.mini.learnt import LEARNT
from retrieval.models.mini.network import EPSILON
from retrieval.models.mini.values import HISTOGRAMS_FROM, emphasised
from retrieval.models.mini.weights import find_weights
from retrieval.models.modes import OBJECT, SURFACE, MapValues, Target
from retrieval.sample_images.pictures import gallery

SEEDS = (7, 11)
PLAIN = MapValues(sharpness=1.0)


def classifier_root() -> Tensor:
    """Return ``M^(1/4) [320, 320]``, M scaled to a mean diagonal of 1: ``f M g`` compares the logits of f and g."""
    released = torch.load(find_weights(), weights_only=True)
    scale = released["_bn1.weight"] / (released["_bn1.running_var"] + EPSILON).sqrt()
    classes = released["_fc.weight"] - released["_fc.weight"].mean(0)
    logits = (classes @ (released["_conv_head.weight"][:, :, 0, 0] * scale[:, None])).double()
    metric = logits.T @ logits
    sizes, directions = torch.linalg.eigh(metric / metric.diagonal().mean())
    return (directions * sizes.clamp_min(0) ** 0.25 @ directions.T).float()


def learn() -> dict[str, NDArray[np.float32]]:
    """Return the arrays by name; drawing the pictures takes a minute."""
    model, weighed = mini_on(torch.device("cpu"), 224), classifier_root()
    targets = [Target(OBJECT, 0, PLAIN), Target(SURFACE, 0, PLAIN)]
    by_style, roots = defaultdict(list), []
    for seed in SEEDS:
        for picture in gallery(seed=seed):
            pixels = model.prepare(Image.fromarray(picture.pixels))[None]
            seen, surface = (h[0] for h in model.hidden(pixels, targets, "gallery").values())
            by_style[picture.style].append(normalize(emphasised(seen @ weighed)[0].mean(0), dim=0))
            roots.append(surface[0, :, HISTOGRAMS_FROM:].mean(0))
    means = torch.stack([torch.stack(vectors).mean(0) for vectors in by_style.values()]).double()
    removed = torch.linalg.svd((means - means.mean(0)).T, full_matrices=False)[0][:, : len(means) - 1]
    meaning = weighed.double() @ (torch.eye(len(weighed)).double() - removed @ removed.T)
    return {"meaning": meaning.float().numpy(), "centre": torch.stack(roots).mean(0).numpy()}


def main() -> None:
    """Write the file into the package."""
    arrays: dict[str, Any] = {**learn()}
    np.savez(Path(str(mini.__file__)).parent / LEARNT, **arrays)


if __name__ == "__main__":
    main()
