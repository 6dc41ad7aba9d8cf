"""The steps of `make demo` and `make pictures`.

python -m retrieval.sample_images draw GALLERY                      draw the sample images
python -m retrieval.sample_images search GALLERY INDEX SHEET        search in every mode and draw the results
python -m retrieval.sample_images pictures GALLERY INDEX FOLDER     draw the README's pictures, one per mode
"""

import sys
from pathlib import Path

QUERY = "oil/cat.png"
README_QUERIES = ("oil/cat.png", "neon/sailboat.png", "ink/teapot.png")
NEIGHBOURS = 7


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
    """Draw the README's pictures, FOLDER/MODE.jpg: the results of a few queries in every mode."""
    from retrieval.search.engine import Engine
    from retrieval.search.results_sheet import draw_results

    engine = Engine.open(index)
    queries = [gallery / name for name in README_QUERIES]
    for mode in engine.modes:
        found = engine.search_many(queries, mode, k=NEIGHBOURS, exclude_copies=True)
        draw_results(folder / f"{mode}.jpg", list(found))


def main() -> None:
    """Run the step named on the command line."""
    steps = {"draw": draw, "search": search, "pictures": pictures}
    step, *paths = sys.argv[1:] or ["help"]
    if step not in steps:
        sys.exit(__doc__)
    steps[step](*map(Path, paths))  # type: ignore[operator]


if __name__ == "__main__":
    main()
