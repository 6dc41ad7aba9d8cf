"""The options of all commands, each defined once. ``None`` leaves a value to the index, the model or the metric."""

from pathlib import Path
from typing import Annotated

import typer

from cli.terminal.process import print_version
from retrieval.settings import CANDIDATES, REGION_CANDIDATES, EngineSettings, ModelSettings
from retrieval.types import AlphaRule, AttentionRule, Branches, ColourRule, DeviceName, DtypeName, NoiseRule
from retrieval.types import Combine as CombineRule
from retrieval.types import Parity as ParityName
from retrieval.types import Similarity as SimilarityName

_MODEL, _ENGINE = ModelSettings(), EngineSettings()

# Shared by the commands.
Index = Annotated[
    str | None,
    typer.Option(
        "--index",
        "-i",
        metavar="PLACE",
        help="Folder of the index, or s3://BUCKET/NAME. (default: $DIFFSIM_INDEX, else the only *.diffsim here)",
    ),
]
Device = Annotated[DeviceName, typer.Option("--device", help="Run the models on this device.")]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="Read the model's weights from this folder, laid out as on the hub.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Never contact the model hub; use its local cache only.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress, notes or summaries.")]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, show_default=False, metavar="", help="Say more and log; -vv logs every detail."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Print a line now and then in place of a bar.")]
Version = Annotated[
    bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
]

# How a model is run: diffsim-index build and the metrics of diffsim-eval.
ImageSize = Annotated[
    int | None,
    typer.Option("--image-size", help="Resize images to this many pixels a side. (default: the model's own)"),
]
BranchesOf = Annotated[
    Branches | None,
    typer.Option("--branches", help=f"Use these guidance branches of a diffusion model. (default: {_MODEL.branches})"),
]
Noise = Annotated[
    NoiseRule | None,
    typer.Option(
        "--noise", help="pairwise gives the published score, shared a symmetric one. (default: the model's own)"
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", help=f"Draw noise and random triplets with this seed. (default: {_MODEL.seed})")
]
Prompt = Annotated[
    str | None, typer.Option("--prompt", help=f"Give this prompt to a diffusion model. (default: {_MODEL.prompt})")
]
Alpha = Annotated[
    AlphaRule | None,
    typer.Option(
        "--alpha",
        help=f"Composite the alpha channel on white, or drop it as the published code does. (default: {_MODEL.alpha})",
    ),
]
Colour = Annotated[
    ColourRule | None,
    typer.Option(
        "--colour",
        help="Convert colours to sRGB by the images' ICC profiles, or ignore these as the published code does. "
        f"(default: {_MODEL.colour})",
    ),
]
Parity = Annotated[
    ParityName | None,
    typer.Option(
        "--parity",
        help=f"Where published code and paper differ, follow the paper (sound) or the code. (default: {_MODEL.parity})",
    ),
]
Dtype = Annotated[
    DtypeName | None, typer.Option("--dtype", help=f"Compute in this number format. (default: {_MODEL.dtype})")
]
Similarity = Annotated[
    SimilarityName, typer.Option("--similarity", help="Compare by cosine, or by mean squared error (lower is closer).")
]

# diffsim-index build and fill.
Sources = Annotated[list[Path], typer.Argument(metavar="SOURCE", help="Folders, walked recursively, and images.")]
Modes = Annotated[
    str | None,
    typer.Option(
        "--modes",
        metavar="NAMES",
        help="Build these modes, or add them to the index. "
        "(default: all of mini, else style,instance,semantic where the model has them)",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option("--metric", metavar="NAME", help="Name the model by a metric of `diffsim-eval list` instead."),
]
Encoders = Annotated[
    str | None,
    typer.Option(
        "--encoders",
        metavar="NAMES",
        help="Choose candidates with these encoders: clip,siglip2; hf:OWNER/NAME or hf:/FOLDER for any vision model; "
        "NAME=FOLDER for local weights; none for no encoder.",
    ),
]
Codec = Annotated[
    str | None,
    typer.Option(
        "--codec",
        metavar="NAME",
        help="Store tensors as qkv-float16, hidden-float16 or hidden-int8. (default: the model's own)",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", help="Compute this many images at a time. (default: the model's own, less on a small GPU)"
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Decode images in this many threads. (default: one per core, 8 at most)")
]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", metavar="N", help="Refuse images of more pixels, counted as they are decoded.")
]
SegmentRows = Annotated[int, typer.Option("--segment-rows", help="Commit after this many images.")]
CommitSeconds = Annotated[float, typer.Option("--commit-seconds", help="Commit after this many seconds.")]
Attention = Annotated[
    AttentionRule | None,
    typer.Option(
        "--attention",
        help="eager computes the tensors of all images, lazy leaves them to searches. (default: the index's own)",
    ),
]
Rehash = Annotated[
    bool, typer.Option("--rehash", help="Compare the bytes of all images, not only where size or times changed.")
]
Gone = Annotated[
    bool, typer.Option("--gone", help="Remove vanished images even where most of a source vanished at once.")
]
RetryRejects = Annotated[bool, typer.Option("--retry-rejects", help="Try images again that were rejected before.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the work, disk, memory and time; write nothing.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with code 4 if images were rejected.")]
Order = Annotated[
    list[str],
    typer.Option("--order", help="Begin with newest, oldest or path; or with images like:QUERY (repeatable)."),
]
ModesToFill = Annotated[
    str | None, typer.Option("--modes", metavar="NAMES", help="Fill these modes. (default: all modes of the index)")
]

# The other commands of diffsim-index.
Patterns = Annotated[
    list[str] | None, typer.Argument(metavar="WHAT", help="Paths, ends of paths, globs (in quotes), or id:N.")
]
Source = Annotated[
    Path | None, typer.Option("--source", metavar="FOLDER", help="Remove this source with all its images instead.")
]
Place = Annotated[str | None, typer.Argument(metavar="INDEX", help="Folder of the index, as with --index.")]
OldPlace = Annotated[Path, typer.Argument(metavar="OLD", help="A source, or a folder that holds sources.")]
NewPlace = Annotated[Path, typer.Argument(metavar="NEW", help="The folder where its images lie now.")]
Now = Annotated[bool, typer.Option("--now", help="Delete the old segments at once; no search may be running.")]
Repair = Annotated[bool, typer.Option("--repair", help="Restore or take out damage; the next build completes it.")]
DryRunOfRepair = Annotated[bool, typer.Option("--dry-run", help="Say what --repair would take out; write nothing.")]
Undo = Annotated[bool, typer.Option("--undo", help="Bring back what the last repair took out, within a day.")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="An empty or new folder.")]
Rejects = Annotated[bool, typer.Option("--rejects", help="List the rejected images and the reasons.")]

# diffsim-search.
Queries = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="QUERY",
        help="Images: paths, - for stdin, id:N, or the end of an indexed path; or text:WORDS.",
    ),
]
CombineImages = Annotated[
    CombineRule | None,
    typer.Option(
        "--combine",
        help="Ask one question with all images: the mean of their scores, the closest of them (max), or one attention "
        "over all (union). Weights are written 2:a.jpg.",
    ),
]
Away = Annotated[
    list[str] | None,
    typer.Option(
        "--not",
        metavar="IMAGE|MODE",
        help="Move away from this image, twice as far with 2:IMAGE; or prefer results that are not alike in this mode "
        "(repeatable).",
    ),
]
SameIn = Annotated[
    tuple[str, float] | None,
    typer.Option("--same", metavar="MODE WEIGHT", help="Prefer results alike in this mode, too; 1 counts as --mode."),
]
BoxOf = Annotated[
    str | None,
    typer.Option(
        "--box", metavar="X,Y,W,H", help="Search with this part of the one image: pixels, or fractions if all are <= 1."
    ),
]
MaskOf = Annotated[
    Path | None,
    typer.Option("--mask", metavar="FILE", help="Search with the part of the one image that is white in this picture."),
]
SubjectOf = Annotated[
    bool, typer.Option("--subject", help="Search with the subject of each query, where the model of the index sees it.")
]
Mode = Annotated[
    str | None,
    typer.Option(
        "--mode",
        "-m",
        metavar="NAME",
        help="Search by style, instance, semantic or lowlevel. (default: the index's first)",
    ),
]
Top = Annotated[int, typer.Option("-k", "--top", help="Return this many results.")]
Candidates = Annotated[
    int | None,
    typer.Option(
        "--candidates",
        help="Let the encoders choose this many images for exact scoring; at least -k. "
        f"(default: {CANDIDATES}, with --box or --mask {REGION_CANDIDATES})",
    ),
]
Exhaustive = Annotated[bool, typer.Option("--exhaustive", help="Score every image of the index exactly.")]
NoRerank = Annotated[
    bool, typer.Option("--no-rerank", help="Return the ranking of the encoders, without exact scores.")
]
MinScore = Annotated[float | None, typer.Option("--min-score", help="Leave out results with a worse score.")]
EncoderFolders = Annotated[
    str | None,
    typer.Option(
        "--encoders",
        metavar="NAME=FOLDER,...",
        help="Read the encoders' weights from these folders; they must be the weights that the index was built with.",
    ),
]
MaxCache = Annotated[
    str | None,
    typer.Option(
        "--max-cache",
        metavar="SIZE",
        help=f"Keep at most this much of the tensors that searches compute, e.g. 500MB; 0 keeps none. "
        f"(default: {_ENGINE.max_cache // 10**9}GB)",
    ),
]
Sheets = Annotated[
    list[Path] | None,
    typer.Option("--sheet", metavar="FILE", help="Also draw the results as FILE.png or FILE.html (repeatable)."),
]
Explain = Annotated[
    Path | None,
    typer.Option(
        "--explain",
        metavar="FILE",
        help="Also draw as FILE.png which parts of the pictures make the score, for the first 10 results; "
        "--json and --jsonl then have the numbers.",
    ),
]
AsJsonl = Annotated[bool, typer.Option("--jsonl", help="Print one JSON object per result.")]
Paths = Annotated[bool, typer.Option("--paths", help="Print one path per line.")]
Null = Annotated[bool, typer.Option("-0", "--null", help="Print paths that end with a zero byte, for xargs -0.")]
