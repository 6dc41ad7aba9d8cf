"""``diffsim-eval coarse-recall``: measure how many of the exact nearest images are among the candidates."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli import options
from cli.eval import options as opt
from cli.eval.loading import load_all
from cli.eval.option_groups import MetricOptions
from cli.option_groups import Place, Speech, expand_groups
from cli.parsing import parse_numbers
from cli.terminal.printing import show, show_json
from cli.terminal.process import Speaker, work_offline
from cli.terminal.progress import ProgressBar
from index_store.locate import is_index
from index_store.remote.object_store import is_url
from retrieval.errors import UsageError
from retrieval.settings import EngineSettings

if TYPE_CHECKING:
    from retrieval.evaluation.candidate_recall import Recall

recalls = typer.Typer()
ENCODER = "descriptor"  # the default for a folder


@recalls.command("coarse-recall")
@expand_groups
def coarse_recall(
    place: opt.FolderOrIndex,
    *,
    metric: opt.RecallMetric = None,
    encoder: opt.RecallEncoder = None,
    candidates: opt.CandidateCounts = "10,20,50,100,200",
    k: opt.Neighbours = 10,
    queries: opt.QueryCount = 200,
    seed: opt.QuerySeed = 0,
    weights: opt.Weights = None,
    where: Place,
    as_json: options.AsJson = False,
    speech: Speech,
) -> None:
    """Measure how many of the exact nearest images are among the candidates that the encoders choose.

    For an index: its own encoders, in all its modes. For a folder of images: any metric and any encoder.
    """
    work_offline(where.offline)
    counts, speaker = parse_numbers(candidates), speech.speaker()
    of_index = is_url(place) or is_index(Path(place))
    with ProgressBar(speaker) as bar:
        if of_index:
            if metric is not None or encoder is not None or weights:
                raise UsageError(f"{place} is an index with its own model: leave --metric, --encoder, --weights out")
            found = _recall_of_index(place, counts, k, queries, seed, where, bar)
        else:
            how = MetricOptions(**vars(where), weights=weights)
            found = _recall_of_folder(Path(place), metric, encoder or ENCODER, counts, k, how, bar, speaker)
    if as_json:
        show_json({"schema": 1, "index" if of_index else "folder": place, "recalls": [asdict(row) for row in found]})
        return
    for row in found:
        show(
            f"{row.of}: of the exact top {row.k}, {100 * row.recall:.1f} % are among {row.candidates} candidates, "
            f"and all of them for {100 * row.whole:.1f} % of {row.queries} queries"
        )
    if min(counts) < k:
        speaker.note(f"{min(counts)} candidates can hold at most {100 * min(counts) / k:.0f} % of {k} nearest images")


def _recall_of_index(
    place: str, counts: Sequence[int], k: int, queries: int, seed: int, where: Place, bar: ProgressBar
) -> "list[Recall]":
    from retrieval.evaluation.candidate_recall import index_recall
    from retrieval.search.engine import Engine

    engine = Engine.open(place, EngineSettings(where.device, offline=where.offline))
    return index_recall(engine, counts, k, queries, seed, bar.overall("coarse recall", len(engine.modes)))


def _recall_of_folder(
    folder: Path,
    metric: str | None,
    encoder: str,
    counts: Sequence[int],
    k: int,
    how: MetricOptions,
    bar: ProgressBar,
    speaker: Speaker,
) -> "list[Recall]":
    from retrieval.devices.selection import choose_device
    from retrieval.evaluation.candidate_recall import coarse_recall as measure
    from retrieval.evaluation.runner import Run
    from retrieval.evaluation.triplets import need_folder
    from retrieval.models.registry import load_embedder

    need_folder(folder, "an index, or a folder of images, is expected there")
    if metric is None:
        raise UsageError(f"{folder} is not an index: name the metric for a folder of images with --metric")
    loaded = load_all([metric], how, speaker)
    name, _, home = encoder.partition("=")
    embedder = load_embedder(name, Path(home) if home else None, choose_device(how.device), how.offline)
    return measure(folder, metric, embedder, counts, Run(metrics=loaded, on_progress=bar.show), k)
