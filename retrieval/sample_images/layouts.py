"""Small drawn sets in the folder layouts of the paper's benchmarks, for machines without its data.

The styles and motifs are those of :mod:`retrieval.sample_images.pictures`; a motif in one style is a character. In the
paper, the variants of a character drift as the weight of an image prompt falls. Here variants are turned, enlarged and
recoloured.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from retrieval.sample_images.pictures import MOTIFS, STYLES, draw

WEIGHTS = ("1.0", "0.8", "0.6", "0.4", "0.35", "0.3", "0.2")
TURN, GROWTH, HUES = 40.0, 0.5, 60.0  # at a weight of 0: degrees, share of the size, steps of 256


def draw_styles(folder: Path, size: int = 256) -> int:
    """Write four motifs per style as ``STYLE/N.png``, the layout of Sref; return the number of pictures."""
    for number, style in enumerate(STYLES):
        for place in range(4):
            motif = tuple(MOTIFS)[(number + 2 * place) % len(MOTIFS)]  # neighbouring styles get different motifs
            _save(folder / style / f"{place + 1}.png", draw(style, motif, size, variant=1))
    return 4 * len(STYLES)


def draw_characters(folder: Path, size: int = 256) -> int:
    """Write ``original/CHARACTER.png`` and ``CHARACTER/WEIGHT.png``, the layout of the IP bench; return the number."""
    for number, style in enumerate(STYLES):
        motif = tuple(MOTIFS)[number % len(MOTIFS)]
        name = f"{style}-{motif}"
        original = Image.fromarray(draw(style, motif, size, variant=2))
        _save(folder / "original" / f"{name}.png", np.asarray(original))
        for weight in WEIGHTS:
            _save(folder / name / f"{weight}.png", np.asarray(drifted(original, float(weight), number)))
    return (1 + len(WEIGHTS)) * len(STYLES)


def draw_scenes(folder: Path, size: int = 256) -> int:
    """Write six styles per motif as ``MOTIF/NUMBER.jpg``, the layout of COCO by class; return the number."""
    for number, motif in enumerate(MOTIFS):
        for place in range(6):
            style = STYLES[(3 * number + 5 * place) % len(STYLES)]
            _save(folder / motif / f"{100 * number + place:012d}.jpg", draw(style, motif, size, variant=3 + place))
    return 6 * len(MOTIFS)


def drifted(original: Image.Image, weight: float, number: int) -> Image.Image:
    """Return the variant of an original at a weight of 0 to 1; an odd ``number`` drifts the other way."""
    loss = 1.0 - weight + 0.05
    side, sign = original.width, 1 if number % 2 else -1
    larger = original.resize((round(side * (1.2 + GROWTH * loss)),) * 2, Image.Resampling.LANCZOS)
    turned = larger.rotate(sign * TURN * loss, Image.Resampling.BICUBIC)
    start = (turned.width - side) // 2
    hue, saturation, value = turned.crop((start, start, start + side, start + side)).convert("HSV").split()
    hue = hue.point(lambda level: (level + round(sign * HUES * loss)) % 256)
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _save(path: Path, pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=92)
