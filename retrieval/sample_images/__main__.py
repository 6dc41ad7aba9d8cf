"""The steps of `make demo` and `make pictures`.

python -m retrieval.sample_images draw GALLERY                      draw the sample images
python -m retrieval.sample_images search GALLERY INDEX SHEET        search in every mode and draw the results
python -m retrieval.sample_images pictures GALLERY INDEX FOLDER     draw the README's pictures, one per mode
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

QUERY = "oil/cat.png"
README_QUERIES = ("oil/cat.png", "neon/sailboat.png", "ink/teapot.png")
NEIGHBOURS = 7
SCENE, REGION = "watercolour/mountain.png", (0.3, 0.4, 0.4, 0.4)  # on which QUERY is pasted, and where
EXPLAINED = 2  # results


def draw(gallery: Path) -> None:
    """Draw 16 styles x 8 motifs as GALLERY/STYLE/MOTIF.png."""
    from retrieval.sample_images.pictures import draw_gallery

    print(f"drew {len(draw_gallery(gallery))} pictures in {gallery}")


def search(gallery: Path, index: Path, sheet: Path) -> None:
    """Search INDEX with one picture in every mode and draw the results as SHEET."""
    from retrieval.search.engine import Engine
    from retrieval.search.results_sheet import draw_results

    engine = Engine.open(index)
    query = gallery / QUERY
    found = [(query, engine.search(query, mode, k=NEIGHBOURS, exclude_copies=True)) for mode in engine.modes]
    draw_results(sheet, found, heading=f"{QUERY} among {len(engine)} pictures, embedded model")
    print(f"drew the nearest pictures in every mode: {sheet}")


def pictures(gallery: Path, index: Path, folder: Path) -> None:
    """Draw the README's pictures, FOLDER/MODE.jpg: the results of a few queries in every mode; and an explanation."""
    from retrieval.search.engine import Engine
    from retrieval.search.explaining.explanation_sheet import draw_explanations
    from retrieval.search.queries.query import Query
    from retrieval.search.queries.region import Box
    from retrieval.search.results_sheet import draw_results

    engine = Engine.open(index)
    queries = [gallery / name for name in README_QUERIES]
    for mode in engine.modes:
        found = engine.search_many(queries, mode, k=NEIGHBOURS, exclude_copies=True)
        draw_results(folder / f"{mode}.jpg", list(found))
    region = Query([_scene(gallery)], regions=[Box(*REGION)])
    results = engine.search(region, "instance", k=EXPLAINED)
    draw_explanations(folder / "explanation.jpg", list(engine.explain_all(region, results, "instance", 6)))


def _scene(gallery: Path) -> "Image.Image":
    """Return a drawn picture with another one small on it, in REGION."""
    from PIL import Image

    scene = Image.open(gallery / SCENE).convert("RGB").resize((640, 640))
    x, y, width, height = (round(640 * side) for side in REGION)
    scene.paste(Image.open(gallery / QUERY).convert("RGB").resize((width, height)), (x, y))
    return scene


def main() -> None:
    """Run the step named on the command line."""
    steps = {"draw": draw, "search": search, "pictures": pictures}
    step, *paths = sys.argv[1:] or ["help"]
    if step not in steps:
        sys.exit(__doc__)
    steps[step](*map(Path, paths))  # type: ignore[operator]


if __name__ == "__main__":
    main()
