"""The options of ``diffsim-eval`` that no other command has; :mod:`cli.options` holds the shared ones."""

from pathlib import Path
from typing import Annotated

import typer

from retrieval.evaluation.benchmarks.paper import Variant as VariantName

# What is measured.
First = Annotated[Path, typer.Argument(metavar="A", help="The query image.")]
Second = Annotated[Path, typer.Argument(metavar="B", help="The image to compare it with.")]
BenchName = Annotated[str, typer.Argument(metavar="BENCH", help="A benchmark of `diffsim-eval list`.")]
Source = Annotated[
    Path | None, typer.Argument(metavar="DATA", help="Folder or CSV of the benchmark; the same as --data.")
]
Data = Annotated[Path | None, typer.Option("--data", help="Read the benchmark from this folder or CSV.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder of images.")]
FolderOrIndex = Annotated[
    str, typer.Argument(metavar="PLACE", help="An index (a folder or s3://BUCKET/NAME.diffsim), or a folder of images.")
]
Reports = Annotated[
    list[Path] | None, typer.Argument(metavar="REPORT.json", help="Reports that `bench --out FILE.json` wrote.")
]
Metrics = Annotated[
    list[str],
    typer.Option(
        "--metric", "-m", metavar="NAMES", help="Measure with these metrics of `diffsim-eval list`: cells,ssim."
    ),
]
OneMetric = Annotated[
    str, typer.Option("--metric", "-m", metavar="NAME", help="Measure with this metric of `diffsim-eval list`.")
]

# How a metric is computed.
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights", metavar="DIR", help="Read weights from DIR for every metric, or METRIC=DIR for one (repeatable)."
    ),
]
Layer = Annotated[
    str | None, typer.Option("--layer", help="Read this layer: U_0, D_2, M, 11 ... (default: the metric's own)")
]
Step = Annotated[
    int | None,
    typer.Option("--step", help="Read this denoising step; higher is less noise. (default: the metric's own)"),
]
Masks = Annotated[
    Path | None,
    typer.Option("--masks", metavar="FOLDER", help="Give ffa the masks FOLDER/NAME.png in place of rembg's."),
]

# How a benchmark is run.
Ensemble = Annotated[bool, typer.Option("--ensemble", help="Also measure the majority vote of the metrics.")]
Variant = Annotated[VariantName, typer.Option("--variant", help="Follow the protocol of the published code or paper.")]
Triplets = Annotated[int, typer.Option("--triplets", help="Draw this many triplets in groups, sref and instantstyle.")]
Originals = Annotated[
    Path | None, typer.Option("--originals", metavar="FOLDER", help="Find the original images of ip here.")
]
Out = Annotated[
    list[Path] | None,
    typer.Option("--out", "-o", metavar="FILE", help="Also write FILE.csv, FILE.json or FILE.md (repeatable)."),
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", metavar="FOLDER", help="Keep features here, so that a stopped run can go on."),
]
TrecRun = Annotated[
    Path | None,
    typer.Option("--trec", metavar="FOLDER", help="Also write the rankings of groups as FOLDER/METRIC.run and qrels."),
]

# figure and sweep.
Queries = Annotated[
    list[Path] | None, typer.Option("--query", help="Search with this image (repeatable). (default: three of DIR)")
]
Neighbours = Annotated[int, typer.Option("-k", "--top", help="Look at this many nearest images.")]
Picture = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Draw this picture.")]
Layers = Annotated[str, typer.Option("--layers", metavar="NAMES", help="Sweep these layers: D_2,M,U_0.")]
Steps = Annotated[
    str, typer.Option("--steps", metavar="NUMBERS", help="Sweep these denoising steps, as published: 500,750,900.")
]
ImageSizes = Annotated[
    str | None,
    typer.Option(
        "--image-sizes", metavar="NUMBERS", help="Sweep these resolutions: 512,768. (default: the metric's own)"
    ),
]
CsvOut = Annotated[
    Path | None, typer.Option("--csv", metavar="FILE", help="Also write the numbers as FILE.csv, .json or .md.")
]

# coarse-recall.
RecallMetric = Annotated[
    str | None,
    typer.Option("--metric", "-m", metavar="NAME", help="For a folder: the metric that ranks its images exactly."),
]
RecallEncoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="NAME[=DIR]",
        help="For a folder: the encoder (clip, dinov2, subject, descriptor). (default: descriptor)",
    ),
]
CandidateCounts = Annotated[
    str, typer.Option("--candidates", metavar="NUMBERS", help="Measure recall for these numbers of candidates.")
]
QueryCount = Annotated[int, typer.Option("--queries", min=1, help="For an index: search with this many of its images.")]
QuerySeed = Annotated[int, typer.Option("--seed", help="For an index: draw the queries with this seed.")]

# tune.
Encoder = Annotated[
    str, typer.Option("--encoder", metavar="NAME[=DIR]", help="Tune clip or dinov2; DIR holds its weights.")
]
TuneTriplets = Annotated[
    Path,
    typer.Option(
        "--triplets", metavar="FILE.csv", help="Learn from NIGHTS's data.csv, or from reference,nearer,farther."
    ),
]
TunedFolder = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Write the tuned encoder to this new folder.")
]
Epochs = Annotated[int, typer.Option("--epochs", help="Learn from all triplets this many times.")]
Rank = Annotated[int, typer.Option("--rank", help="Rank of LoRA; its alpha is twice the rank, as published.")]
LearningRate = Annotated[float, typer.Option("--learning-rate", help="Learning rate of Adam.")]
TuneBatch = Annotated[int, typer.Option("--batch-size", help="Learn from this many triplets per step.")]
TuneSeed = Annotated[int, typer.Option("--seed", help="Seed of the order, the dropout and the held-out triplets.")]
