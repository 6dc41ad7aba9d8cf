"""The paper's retrieval figures: a query and its nearest images, with a row for each metric."""

from collections.abc import Sequence
from pathlib import Path

from retrieval.drawing.cells import SheetCell, SheetRow
from retrieval.drawing.sheet_file import write_sheet
from retrieval.errors import UsageError
from retrieval.evaluation.runner import Run
from retrieval.images.discovery import find_images
from retrieval.metrics.features import select
from retrieval.metrics.registry import METRICS


def draw_figure(folder: Path, queries: Sequence[Path], out: Path, run: Run, k: int = 4) -> None:
    """Draw the ``k`` images below ``folder`` nearest to each query, without the query's own file.

    Raises:
        UsageError: fewer than two images, a missing query, or an ``out`` that can't be a sheet.
    """
    items = list(find_images([folder]).files)
    if len(items) < 2:
        raise UsageError(f"a figure needs two images or more, and {folder} holds {len(items) or 'none'}")
    if k < 1:
        raise UsageError(f"a figure shows one neighbour or more, not {k}")
    for query in queries:
        if not query.is_file():
            raise UsageError(f"query {query}: no such file: check the path")
    asked = [query.resolve() for query in queries] or _spread(items)
    found = {name: _nearest(name, asked, items, run, k) for name in run.metrics}
    rows = [
        SheetRow(
            title=f"{name}: {METRICS[name].title}" if name in METRICS else name,
            query=SheetCell(query, "query", _parent_and_name(query)),
            neighbours=[SheetCell(path, f"{score:.3f}", _parent_and_name(path)) for path, score in found[name][query]],
        )
        for query in asked
        for name in run.metrics
    ]
    most = max(len(row.neighbours) for row in rows)
    write_sheet(out, rows, f"nearest {most} of {len(items)} images in {folder.resolve().name}")


def _nearest(
    name: str, queries: Sequence[Path], items: Sequence[Path], run: Run, k: int
) -> dict[Path, list[tuple[Path, float]]]:
    store = run.store(name)
    store.encode(items, "gallery", run.listener("figure", name))
    store.encode(queries, "query", run.listener("figure", name))
    gallery, metric = store.get(items, "gallery"), store.metric
    found = {}
    for query in queries:
        one = store.get([query], "query")
        order = [i for i in metric.rank(one, gallery).tolist() if items[i] != query][:k]
        scores = metric.score(one, select(gallery, order)).tolist()
        if metric.comparative:  # its scores depend on the whole gallery
            everything = metric.score(one, gallery)
            scores = [float(everything[i]) for i in order]
        found[query] = [(items[i], metric.shown(score)) for i, score in zip(order, scores, strict=True)]
    return found


def _spread(items: Sequence[Path], count: int = 3) -> list[Path]:
    """Return ``count`` images, evenly spread over the sorted list."""
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(min(count, len(items)))]


def _parent_and_name(path: Path) -> str:
    return "/".join(path.parts[-2:])
