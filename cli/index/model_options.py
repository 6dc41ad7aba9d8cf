"""Groups of options with which an index is built or filled; see :mod:`cli.option_groups`."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from cli import options
from cli.option_groups import Place, text_of, without_none
from cli.parsing import parse_encoders
from retrieval.models.registry import EXTRACTORS
from retrieval.settings import BuildSettings, ModelSettings

_BUILD, _MODEL = BuildSettings(), ModelSettings()

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help=f"Use this model: auto, {', '.join(EXTRACTORS)}, or hf-aas:OWNER/NAME#LAYER. (default: {_MODEL.model})",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model of an index and how it is run."""

    model: Model = None
    metric: options.Metric = None
    weights: options.Weights = None
    encoders: options.Encoders = None
    image_size: options.ImageSize = None
    branches: options.BranchesOf = None
    noise: options.Noise = None
    seed: options.Seed = None
    prompt: options.Prompt = None
    alpha: options.Alpha = None
    colour: options.Colour = None
    codec: options.Codec = None
    parity: options.Parity = None
    dtype: options.Dtype = None

    def choices(self) -> dict[str, Any]:
        """Return the :class:`retrieval.settings.ModelChoices` that were given."""
        from retrieval.metrics.registry import chosen_model

        values = {**vars(self), "model": chosen_model(self.model, self.metric), "weights": text_of(self.weights)}
        values["encoders"] = None if self.encoders is None else parse_encoders(self.encoders)
        del values["metric"]
        return without_none(values)


@dataclass(frozen=True, kw_only=True)
class RunOptions(Place):
    """How a build or a fill is run."""

    batch_size: options.BatchSize = None
    workers: options.Workers = None
    max_pixels: options.MaxPixels = _BUILD.max_pixels
    segment_rows: options.SegmentRows = _BUILD.segment_rows
    commit_seconds: options.CommitSeconds = _BUILD.commit_seconds

    def settings(self, **others: Any) -> BuildSettings:
        """Return the library's settings, with values of options that are not in this group."""
        return BuildSettings(**vars(self), **others)
