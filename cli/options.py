"""Every option of the commands, so that a word means the same everywhere. Defaults are the library's."""

from pathlib import Path
from typing import Annotated

import typer

from cli.process import print_version
from retrieval.models.registry import EXTRACTORS
from retrieval.settings import EngineSettings, ModelSettings
from retrieval.types import AlphaRule, AttentionRule, Branches, DeviceName, DtypeName, NoiseRule
from retrieval.types import Parity as ParityName
from retrieval.types import Similarity as SimilarityName

_MODEL, _ENGINE = ModelSettings(), EngineSettings()
_OWN = "(default: the model's own)"

# Shared by the commands.
Index = Annotated[
    str | None,
    typer.Option(
        "--index",
        "-i",
        metavar="PLACE",
        help="The index: a folder or s3://BUCKET/NAME. Else $DIFFSIM_INDEX, else the only *.diffsim in this folder.",
    ),
]
Device = Annotated[DeviceName, typer.Option("--device", help="Where models run.")]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="A local folder of the model's weights, in the hub's layout.")
]
Encoders = Annotated[
    str | None,
    typer.Option(
        "--encoders", metavar="NAMES", help="Coarse encoders: clip,dinov2, NAME=FOLDER for local weights, or none."
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never contact the model hub; use what is cached.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Version = Annotated[
    bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and end.")
]

# Of diffsim-index build. What is left out is the index's own, or the default of a new one.
Sources = Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Folders (walked recursively) and images.")]
Modes = Annotated[
    str | None,
    typer.Option(
        "--modes",
        help="Modes to build for, or to add. (default: style,instance,semantic, as far as the model has them)",
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help=f"auto, {', '.join(EXTRACTORS)}. (default: {_MODEL.model})"),
]
Metric = Annotated[
    str | None,
    typer.Option("--metric", metavar="NAME", help="In place of --model: a metric of `diffsim-eval list` on attention."),
]
ImageSize = Annotated[int | None, typer.Option("--image-size", help=f"Pixels a side. {_OWN}")]
BranchesOf = Annotated[
    Branches | None,
    typer.Option("--branches", help=f"Guidance branches of diffusion models. (default: {_MODEL.branches})"),
]
Noise = Annotated[
    NoiseRule | None, typer.Option("--noise", help=f"pairwise is the published score, shared is symmetric. {_OWN}")
]
Seed = Annotated[int | None, typer.Option("--seed", help=f"Seed of the noise. (default: {_MODEL.seed})")]
Prompt = Annotated[str | None, typer.Option("--prompt", help=f"Prompt of diffusion models. (default: {_MODEL.prompt})")]
Alpha = Annotated[
    AlphaRule | None,
    typer.Option("--alpha", help=f"Composite alpha on white, or drop it as published. (default: {_MODEL.alpha})"),
]
Codec = Annotated[
    str | None,
    typer.Option(
        "--codec", help=f"How tensors are kept: qkv-float16, hidden-float16 or hidden-int8. (default: {_MODEL.codec})"
    ),
]
Parity = Annotated[
    ParityName | None,
    typer.Option(
        "--parity", help=f"published: as the published code computes where it slipped. (default: {_MODEL.parity})"
    ),
]
Dtype = Annotated[DtypeName | None, typer.Option("--dtype", help=f"The model's arithmetic. (default: {_MODEL.dtype})")]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="Images a batch. (default: the model's own, less on a small GPU)")
]
Workers = Annotated[int | None, typer.Option("--workers", help="Decoding threads. (default: one a core, 8 at most)")]
SegmentRows = Annotated[int, typer.Option("--segment-rows", help="Commit at the latest after this many images,")]
CommitSeconds = Annotated[float, typer.Option("--commit-seconds", help="or after this many seconds.")]
RetryRejects = Annotated[bool, typer.Option("--retry-rejects", help="Try rejected images again.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it takes, and write nothing.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 4 when images were rejected.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Draw no progress bar.")]

Attention = Annotated[
    AttentionRule | None,
    typer.Option(
        "--attention",
        help="eager: compute all tensors; lazy: only those that a search needs, then. (default: the index's own)",
    ),
]
Order = Annotated[
    list[str],
    typer.Option("--order", help="newest, oldest or path first; or like:QUERY, which may be given several times."),
]
ModesToFill = Annotated[str | None, typer.Option("--modes", help="Modes to fill. (default: all of the index)")]

# Of the other commands of diffsim-index.
Patterns = Annotated[
    list[str], typer.Argument(metavar="WHAT...", help="Paths, ends of paths, globs (in quotes), or id:N.")
]
Now = Annotated[bool, typer.Option("--now", help="Drop the old segments at once: no search is under way.")]
Repair = Annotated[bool, typer.Option("--repair", help="Take out what is damaged; the next build computes it again.")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="An empty or new folder.")]
Rejects = Annotated[bool, typer.Option("--rejects", help="List the rejected images with their reasons.")]

# Of diffsim-search.
Queries = Annotated[
    list[str],
    typer.Argument(metavar="QUERY...", help="Images: paths, - for stdin, id:N, or the end of an indexed path."),
]
Mode = Annotated[
    str | None, typer.Option("--mode", "-m", help="style, instance, semantic or lowlevel. (default: the index's first)")
]
Top = Annotated[int, typer.Option("-k", "--top", help="How many neighbours; --candidates is this many at least.")]
Candidates = Annotated[int, typer.Option("--candidates", help="How many images the exact score orders.")]
Exhaustive = Annotated[bool, typer.Option("--exhaustive", help="Score every image of the index.")]
NoRerank = Annotated[bool, typer.Option("--no-rerank", help="Show the coarse ranking.")]
Similarity = Annotated[SimilarityName, typer.Option("--similarity", help="mse: lower is closer.")]
MinScore = Annotated[float | None, typer.Option("--min-score", help="Leave out what scores worse.")]
ExcludeQuery = Annotated[bool, typer.Option("--exclude-query", help="Leave out files equal to the query.")]
EncoderFolders = Annotated[
    str | None,
    typer.Option(
        "--encoders",
        metavar="NAME=FOLDER,...",
        help="Folders of the index's coarse encoders, in place of those it remembers; their weights must be the same.",
    ),
]
MaxCache = Annotated[
    str | None,
    typer.Option(
        "--max-cache",
        metavar="SIZE",
        help=f"Bytes of tensors that searches keep, like 500MB; 0: none. (default: {_ENGINE.max_cache // 10**9}GB)",
    ),
]
Sheet = Annotated[Path | None, typer.Option("--sheet", help="Also draw the results: FILE.png or FILE.html.")]
AsJsonl = Annotated[bool, typer.Option("--jsonl", help="Print one JSON object a neighbour.")]
Paths = Annotated[bool, typer.Option("--paths", help="Print one path a line.")]
Null = Annotated[bool, typer.Option("-0", "--null", help="Print paths, each ended by a zero byte.")]
