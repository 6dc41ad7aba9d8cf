"""Options that several commands share, so that a word means the same everywhere. Defaults are the library's."""

from pathlib import Path
from typing import Annotated

import typer

from cli.running import print_version
from retrieval.vocabulary import DeviceName

Index = Annotated[
    Path | None,
    typer.Option("--index", "-i", help="The index. Else $DIFFSIM_INDEX, else the only *.diffsim in this folder."),
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
