"""An index of drawn pictures with copies of some of them; tests must not change it."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from retrieval.sample_images.pictures import MOTIFS, STYLES, draw
from tests.bench.duplicates.copies import write_copy

COPIED = {"crop 80 %": "crop", "border": "border", "mirrored": "mirrored", "turned 90 degrees": "turned"}
SMALL = {"scaled to a third": "third", "re-encoded, JPEG q30": "again", "other format": "format"}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures; ``one`` has copies of four kinds, ``two`` of three, and ``three`` has its bytes twice."""
    folder = tmp_path_factory.mktemp("copies") / "pictures"
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


@pytest.fixture(scope="session")
def copies_index(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures, indexed with the embedded model without weights."""
    from retrieval.indexing.build import build_index

    path = tmp_path_factory.mktemp("index") / "copies.diffsim"
    build_index(pictures, path, model="cells")
    return path
