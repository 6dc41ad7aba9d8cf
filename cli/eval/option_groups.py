"""Groups of options that several commands of ``diffsim-eval`` share; see :mod:`cli.option_groups`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli import options
from cli.eval import options as eval_options
from cli.option_groups import Place, text_of, without_none
from retrieval.errors import UsageError
from retrieval.metrics.base import MetricSettings
from retrieval.types import AlphaRule, ColourRule

if TYPE_CHECKING:
    from retrieval.evaluation.benchmarks.paper import BenchOptions
    from retrieval.images.decoding import DecodeRules

_METRIC = MetricSettings()


def decode_rules(alpha: AlphaRule | None, colour: ColourRule | None) -> "DecodeRules":
    """Return the rules for reading images."""
    from retrieval.images.decoding import DecodeRules

    return DecodeRules(**without_none({"alpha": alpha, "colour": colour}))


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """The data of a benchmark and how its images and triplets are taken from it."""

    data: eval_options.Data = None
    variant: eval_options.Variant = "code"
    triplets: eval_options.Triplets = 2000
    originals: eval_options.Originals = None
    alpha: options.Alpha = None
    colour: options.Colour = None
    cache: eval_options.Cache = None

    def place(self, bench: str, source: Path | None) -> Path:
        """Return the data, given as an argument or as --data; both or neither is a UsageError."""
        place = source or self.data
        if place is None or (source is not None and self.data is not None):
            raise UsageError(f"bench {bench} needs its data once: as an argument, or as --data")
        return place

    def protocol(self, seed: int) -> "BenchOptions":
        """Return the library's settings of the benchmark."""
        from retrieval.evaluation.benchmarks.paper import BenchOptions

        return BenchOptions(self.variant, seed, self.triplets, self.originals)

    def kept(self) -> str:
        """Return a sentence on what a stopped run leaves in the cache."""
        return "" if self.cache is None else f"everything computed is kept in {self.cache}; the same command goes on"


@dataclass(frozen=True, kw_only=True)
class MetricOptions(Place):
    """How the metrics of ``diffsim-eval`` are computed."""

    weights: eval_options.Weights = None
    layer: eval_options.Layer = None
    step: eval_options.Step = None
    image_size: options.ImageSize = None
    similarity: options.Similarity = _METRIC.similarity
    parity: options.Parity = None
    branches: options.BranchesOf = None
    noise: options.Noise = None
    seed: options.Seed = None
    prompt: options.Prompt = None
    dtype: options.Dtype = None
    masks: eval_options.Masks = None

    def settings(self) -> MetricSettings:
        """Return the library's settings; weights are read per metric, see :mod:`cli.eval.loading`."""
        values = {**vars(self), "denoising_step": self.step, "masks": text_of(self.masks)}
        for name in ("device", "offline", "weights", "step"):
            del values[name]
        return MetricSettings(**without_none(values))
