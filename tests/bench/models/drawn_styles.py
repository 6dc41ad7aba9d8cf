"""`python -m tests.bench.models.drawn_styles FOLDER`: drawings whose medium, palette and stroke differ independently.

It writes each drawing once and links it into four sets, whose groups are styles (all three alike), media, palettes and
strokes; ``diffsim-eval compare all FOLDER --model mini --modes style --grey`` then compares exact with coarse rankings.
"""

import argparse
import itertools
import os
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval.sample_images.canvas import Art
from retrieval.sample_images.motifs import MOTIFS, compose
from retrieval.sample_images.pictures import palette_of
from retrieval.sample_images.styles import RENDERERS

MEDIA = ("oil", "pointillism", "mosaic", "watercolour", "halftone", "chalk")
PALETTES = ("riviera", "dusk", "meadow", "starry")
STROKES = {"fine": 0.7, "broad": 1.7}  # times the size of strokes, dots, tiles and bends that the medium has
SIDE = 320  # px


def draw(medium: str, palette: str, stroke: str, motif: str) -> Image.Image:
    """Draw a motif, its composition chosen by all four names."""
    renderer, zoom = RENDERERS[medium]
    rng = np.random.RandomState(zlib.crc32(f"{medium}/{palette}/{stroke}/{motif}".encode()))
    art = Art(compose(motif, rng), palette_of(palette), rng, round(SIDE * zoom))
    art.unit *= STROKES[stroke]
    image = Image.fromarray(np.clip(renderer(art), 0, 255).astype(np.uint8))
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main() -> None:
    """Read the command line, draw, link."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    motifs = tuple(MOTIFS)[:4]
    for medium, palette, stroke, motif in itertools.product(MEDIA, PALETTES, STROKES, motifs):
        groups = {"style": f"{medium}-{palette}-{stroke}", "medium": medium, "palette": palette, "stroke": stroke}
        paths = [folder / name / group / f"{medium}-{palette}-{stroke}-{motif}.png" for name, group in groups.items()]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        draw(medium, palette, stroke, motif).save(paths[0])
        for path in paths[1:]:
            os.link(paths[0], path)
    print(f"{len(MEDIA) * len(PALETTES) * len(STROKES) * len(motifs)} drawings in {folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
