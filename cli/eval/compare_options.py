"""The options of ``diffsim-eval compare``, in groups."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.eval import options as opt
from cli.option_groups import Place
from cli.parsing import parse_names
from retrieval.errors import UsageError
from retrieval.settings import CANDIDATES, PUBLISHED_SEED

if TYPE_CHECKING:
    from retrieval.evaluation.comparison.labelled_sets import LabelledSet
    from retrieval.evaluation.comparison.measuring import ModelComparison
    from retrieval.evaluation.comparison.results import SetResult

Kind = Annotated[
    str, typer.Argument(metavar="BENCH", help="A benchmark of groups or triplets: groups, all, nights, levels ...")
]
Labelled = Annotated[Path, typer.Argument(metavar="DATA", help="The folder or CSV of the benchmark.")]
KeptReports = Annotated[
    list[Path], typer.Argument(metavar="REPORT.json", help="Reports that `compare --out FILE.json` wrote.")
]
Models = Annotated[
    str | None,
    typer.Option("--model", metavar="NAMES", help="Compare these models. (default: all whose weights are here)"),
]
ComparedModes = Annotated[
    str | None, typer.Option("--modes", metavar="NAMES", help="Compare in these modes. (default: the models' own)")
]
ModelWeights = Annotated[
    list[str] | None,
    typer.Option("--weights", metavar="MODEL=DIR", help="Read a model's weights from this folder (repeatable)."),
]
Grey = Annotated[bool, typer.Option("--grey", help="Also search greyscale copies of the images with colour queries.")]
MostQueries = Annotated[
    int | None,
    typer.Option("--queries", min=1, help="Draw at most this many queries, or triplets, of each set. (default: all)"),
]
DrawSeed = Annotated[int, typer.Option("--seed", help="Draw triplets and queries with this seed.")]
TimedCandidates = Annotated[
    int,
    typer.Option("--candidates", min=1, help="Time searches with this many candidates, or all images of a small set."),
]
Cost = Annotated[
    str, typer.Option("--cost", metavar="NAME", help="Weigh quality against build, bytes, search or memory.")
]
Out = Annotated[
    list[Path] | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Also write FILE.json, from which a stopped run goes on, or FILE.md (repeatable).",
    ),
]
Figure = Annotated[
    Path | None, typer.Option("--figure", metavar="FILE.png", help="Draw quality over cost, one panel for each mode.")
]


@dataclass(frozen=True, kw_only=True)
class ComparedSets:
    """The labelled images, and how many queries they ask."""

    queries: MostQueries = None
    variant: opt.Variant = "code"
    originals: opt.Originals = None
    seed: DrawSeed = PUBLISHED_SEED

    def load(self, bench: str, source: Path) -> "list[LabelledSet]":
        """Return the sets of a benchmark."""
        from retrieval.evaluation.benchmarks.paper import BenchOptions
        from retrieval.evaluation.comparison.labelled_sets import load_sets

        protocol = BenchOptions(variant=self.variant, seed=self.seed, originals=self.originals)
        return load_sets(bench, source, protocol, self.queries)


@dataclass(frozen=True, kw_only=True)
class ComparedModels(Place):
    """The models to compare, and how they are run."""

    model: Models = None
    modes: ComparedModes = None
    weights: ModelWeights = None
    grey: Grey = False
    candidates: TimedCandidates = CANDIDATES

    def comparison(self, **others: Any) -> "ModelComparison":
        """Return the library's settings, checked; ``others`` are values that are no options."""
        from retrieval.evaluation.comparison.measuring import ModelComparison, models_at_hand

        folders = self._folders()
        return ModelComparison(
            models=parse_names(self.model) if self.model else list(dict.fromkeys([*models_at_hand(), *folders])),
            modes=parse_names(self.modes) if self.modes else None,
            weights=folders,
            device=self.device,
            offline=self.offline,
            grey=self.grey,
            candidates=self.candidates,
            **others,
        )

    def _folders(self) -> dict[str, str]:
        pairs = [text.partition("=") for text in self.weights or []]
        wrong = [model for model, equals, folder in pairs if not equals or not folder]
        if wrong:
            raise UsageError(f"--weights {wrong[0]}: write it as MODEL=FOLDER")
        return {model: folder for model, _, folder in pairs}


@dataclass(frozen=True, kw_only=True)
class ComparedCost:
    """The cost that quality is weighed against, and the picture of both."""

    cost: Cost = "search"
    figure: Figure = None

    def check(self) -> None:
        """Raise a UsageError for an unknown cost or a picture that can't be written."""
        from retrieval.drawing.tradeoff import check_tradeoffs
        from retrieval.evaluation.comparison.summary import check_cost

        check_cost(self.cost)
        if self.figure is not None:
            check_tradeoffs(self.figure)

    def draw(self, results: "list[SetResult]") -> None:
        """Draw the picture if there is to be one."""
        from retrieval.drawing.tradeoff import write_tradeoffs
        from retrieval.evaluation.comparison.report import draw_comparison

        if self.figure is not None:
            write_tradeoffs(self.figure, draw_comparison(results, self.cost))
