"""Drawn pictures with copies of some of them."""

import shutil
from pathlib import Path

from PIL import Image

from retrieval.sample_images.pictures import MOTIFS, STYLES, draw
from tests.bench.duplicates.copies import write_copy

COPIED = {"crop 80 %": "crop", "border": "border", "mirrored": "mirrored", "turned 90 degrees": "turned"}
SMALL = {"scaled to a third": "third", "re-encoded, JPEG q30": "again", "other format": "format"}


def draw_with_copies(folder: Path) -> Path:
    """Draw twelve pictures; ``one`` has copies of four kinds, ``two`` of three, and ``three`` has its bytes twice."""
    folder.mkdir()
    for number, (style, motif) in enumerate(zip(STYLES * 3, MOTIFS * 3, strict=False)):
        if number < 12:
            name = ("one", "two", "three", *map(str, range(3, 12)))[number]
            Image.fromarray(draw(style, motif, size=240)).save(folder / f"{name}.png")
    for number, (kind, name) in enumerate(COPIED.items()):
        write_copy(kind, folder / "one.png", folder / f"one-{name}", number)
    for number, (kind, name) in enumerate(SMALL.items()):
        write_copy(kind, folder / "two.png", folder / f"two-{name}", number)
    (folder / "west").mkdir()
    shutil.copy(folder / "three.png", folder / "west" / "three-bytes.png")
    return folder
