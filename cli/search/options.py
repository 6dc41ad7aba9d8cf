"""Options of ``diffsim-search`` alone, each defined once."""

from pathlib import Path
from typing import Annotated

import typer

from retrieval.types import Scaling as ScalingName

ExcludeSelf = Annotated[
    bool, typer.Option("--exclude-self", help="Leave out the item of the index that the query itself is.")
]
ExcludeCopies = Annotated[
    bool,
    typer.Option("--exclude-copies", help="Leave out all files with the same bytes as the query, itself included."),
]
QueryList = Annotated[
    str | None,
    typer.Option(
        "--queries", metavar="FILE", help="Ask also with the queries in this file or, with -, on stdin: one a line."
    ),
]
Every = Annotated[
    bool, typer.Option("--all", help="Ask with every item of the index; print one JSON object a line and query.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Write each answer at once as one JSON line of this file; the same command goes on after a stop.",
    ),
]
Update = Annotated[
    bool,
    typer.Option("--update", help="First bring the index up to date with its sources, as diffsim-index build does."),
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask this server of diffsim-serve, which holds models and indexes ready; --index is then a name there. "
        "Its token is that of $DIFFSIM_TOKEN.",
    ),
]
TextShare = Annotated[
    float,
    typer.Option(
        "--text-share",
        metavar="SHARE",
        help="Of all images, let an image beside a text find this share, the nearest to the text.",
    ),
]
Under = Annotated[
    list[Path] | None,
    typer.Option("--under", metavar="FOLDER", help="Find only images below this folder, at any depth (repeatable)."),
]
Glob = Annotated[
    list[str] | None,
    typer.Option(
        "--glob",
        metavar="PATTERN",
        help="Find only images whose path ends in something that fits, e.g. '*.png' or 'cats/*'; * also crosses / "
        "(repeatable).",
    ),
]
Newer = Annotated[
    str | None,
    typer.Option(
        "--newer",
        metavar="WHEN",
        help="Find only images whose file was changed since: a date like 2026-01-31, or an age like 7d or 12h.",
    ),
]
Older = Annotated[
    str | None, typer.Option("--older", metavar="WHEN", help="Find only images whose file was changed before.")
]
Source = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="NAME",
        help="Find only images of this source: a folder of `diffsim-index sources`, or the end of its path "
        "(repeatable).",
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Find only images for which this SQL holds on the columns of --metadata, e.g. \"split = 'train'\".",
    ),
]
Metadata = Annotated[
    Path | None,
    typer.Option(
        "--metadata",
        metavar="FILE",
        help="The table of --where: Parquet or CSV, joined to the images by its column sha256 or path.",
    ),
]
LookCloser = Annotated[
    int,
    typer.Option(
        "--look-closer",
        metavar="N",
        help="With a box, mask or subject: encode the place that each of the N best results has it at, from its file, "
        "and order them by that.",
    ),
]
ScalingOf = Annotated[
    ScalingName | None,
    typer.Option(
        "--scaling",
        help="csls ranks images lower that are near to everything. (default: csls with --combine, else none)",
    ),
]
MinPercentile = Annotated[
    float | None,
    typer.Option(
        "--min-percentile", metavar="P", help="Leave out results that score less than P of 100 random pairs, e.g. 99.9."
    ),
]
