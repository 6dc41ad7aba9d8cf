"""The options of ``diffsim-eval``; what other commands share with it lies in :mod:`cli.options`."""

from pathlib import Path
from typing import Annotated

import typer

from retrieval.evaluation.benchmarks.paper import Variant as VariantName
from retrieval.metrics.base import MetricSettings
from retrieval.types import AlphaRule, Branches, DtypeName, NoiseRule
from retrieval.types import Parity as ParityName

_DEFAULTS = MetricSettings()
_OWN = "(default: the metric's own)"

First = Annotated[Path, typer.Argument(metavar="A", help="An image: the query.")]
Second = Annotated[Path, typer.Argument(metavar="B", help="An image that is compared with it.")]
BenchName = Annotated[str, typer.Argument(metavar="BENCH", help="A benchmark of `diffsim-eval list`.")]
Source = Annotated[Path | None, typer.Argument(metavar="[DATA]", help="Its folder, or CSV; the same as --data.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder of images.")]
FolderOrIndex = Annotated[
    str, typer.Argument(metavar="PLACE", help="An index (a folder or s3://BUCKET/NAME.diffsim), or a folder of images.")
]
Reports = Annotated[list[Path] | None, typer.Argument(metavar="[REPORT.json]...", help="Of bench --out FILE.json.")]

Metrics = Annotated[
    list[str], typer.Option("--metric", "-m", metavar="NAMES", help="Metrics of `diffsim-eval list`: mini,ssim.")
]
OneMetric = Annotated[str, typer.Option("--metric", "-m", help="A metric of `diffsim-eval list`.")]
CoarseMetric = Annotated[
    str | None, typer.Option("--metric", "-m", help="Of a folder: a metric of `diffsim-eval list`.")
]
Data = Annotated[Path | None, typer.Option("--data", help="The benchmark's folder, or CSV.")]
Weights = Annotated[
    list[str] | None,
    typer.Option("--weights", metavar="DIR", help="Local weights: DIR for every metric, or METRIC=DIR; repeatable."),
]
Layer = Annotated[str | None, typer.Option("--layer", help=f"U_0, D_2, M, 11 ... {_OWN}")]
Step = Annotated[int | None, typer.Option("--step", help=f"Denoising step as published: higher is less noise. {_OWN}")]
ImageSize = Annotated[int | None, typer.Option("--image-size", help=f"Pixels a side. {_OWN}")]
Parity = Annotated[
    ParityName, typer.Option("--parity", help="published: as the published code computes where it slipped.")
]
BranchesOf = Annotated[Branches, typer.Option("--branches", help="Guidance branches of diffusion models.")]
Noise = Annotated[
    NoiseRule | None, typer.Option("--noise", help=f"pairwise is the published score, shared is symmetric. {_OWN}")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the noise and of drawn triplets.")]
Prompt = Annotated[
    str,
    typer.Option("--prompt", help="Prompt of diffusion models; nights, as published: 'An image of a {category}'."),
]
Masks = Annotated[
    Path | None, typer.Option("--masks", help="Of ffa: given masks, FOLDER/NAME.png, in place of rembg's.")
]
Dtype = Annotated[DtypeName, typer.Option("--dtype", help="The models' arithmetic.")]
Alpha = Annotated[AlphaRule, typer.Option("--alpha", help="Composite alpha on white, or drop it as published.")]

Ensemble = Annotated[bool, typer.Option("--ensemble", help="Also the majority vote of the metrics (three, five ...).")]
Variant = Annotated[VariantName, typer.Option("--variant", help="Protocol of the published code, or of its text.")]
Triplets = Annotated[int, typer.Option("--triplets", help="How many triplets are drawn (groups, sref, instantstyle).")]
Originals = Annotated[Path | None, typer.Option("--originals", help="Of ip: the folder of the original images.")]
Out = Annotated[
    list[Path] | None, typer.Option("--out", "-o", help="Also write FILE.csv, FILE.json or FILE.md; repeatable.")
]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="Keep features in this folder: a run that was stopped goes on there.")
]
TrecRun = Annotated[Path | None, typer.Option("--trec", help="Of groups: write FOLDER/METRIC.run and FOLDER/qrels.")]

Queries = Annotated[list[Path] | None, typer.Option("--query", help="A query; repeatable. (default: three of DIR)")]
Neighbours = Annotated[int, typer.Option("-k", "--top", help="How many neighbours.")]
Picture = Annotated[Path, typer.Option("--out", "-o", help="The picture to write.")]
Layers = Annotated[str, typer.Option("--layers", metavar="NAMES", help="Layers: D_2,M,U_0.")]
Steps = Annotated[str, typer.Option("--steps", metavar="NUMBERS", help="Denoising steps as published: 500,750,900.")]
ImageSizes = Annotated[
    str | None, typer.Option("--image-sizes", metavar="NUMBERS", help=f"Resolutions to sweep: 512,768. {_OWN}")
]
CoarseEncoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="NAME[=DIR]",
        help="Of a folder: clip, dinov2, subject, descriptor. (default: descriptor)",
    ),
]
QuerySeed = Annotated[int, typer.Option("--seed", help="Of an index: which of its images are drawn as queries.")]
QueryCount = Annotated[int, typer.Option("--queries", min=1, help="Of an index: so many of its images are queries.")]
CandidateCounts = Annotated[str, typer.Option("--candidates", metavar="NUMBERS", help="Numbers of candidates.")]
CsvOut = Annotated[Path | None, typer.Option("--csv", help="Also write the numbers as FILE.csv, .json or .md.")]

# Of tune.
Encoder = Annotated[
    str,
    typer.Option("--encoder", metavar="NAME[=DIR]", help="What is tuned: clip or dinov2, of the weights in DIR."),
]
TuneTriplets = Annotated[
    Path, typer.Option("--triplets", metavar="FILE.csv", help="NIGHTS's data.csv, or reference,nearer,farther.")
]
TunedFolder = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to make for the encoder.")]
Epochs = Annotated[int, typer.Option("--epochs", help="Passes over the triplets.")]
Rank = Annotated[int, typer.Option("--rank", help="LoRA's rank; its alpha is twice that, as published.")]
LearningRate = Annotated[float, typer.Option("--learning-rate", help="Adam's.")]
TuneBatch = Annotated[int, typer.Option("--batch-size", help="Triplets a step.")]
TuneSeed = Annotated[int, typer.Option("--seed", help="Of the order, the dropout and what is held out.")]
