"""What the sub-commands of ``diffsim-eval`` share: names, numbers and weights from the command line, loaded metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cli.parsing import parse_names
from cli.process import say
from retrieval.errors import UsageError
from retrieval.metrics.base import Metric, MetricSettings
from retrieval.metrics.registry import describe_metric, load_metric, unused_settings

_OPTIONS = {"denoising_step": "--step"}  # of settings whose option is called otherwise


def chosen_metrics(texts: Sequence[str]) -> list[str]:
    """Read ``mini,ssim`` and repeated options as names, each once; an unknown one is a UsageError."""
    names = list(dict.fromkeys(name for text in texts for name in parse_names(text)))
    if not names:
        raise UsageError("--metric needs a name; see them with: diffsim-eval list")
    for name in names:
        describe_metric(name)
    return names


def place_of(bench: str, source: Path | None, data: Path | None) -> Path:
    """Return the benchmark's data, given as an argument or as --data; both or neither is a UsageError."""
    place = source or data
    if place is None or (source is not None and data is not None):
        raise UsageError(f"bench {bench} needs its data once: as an argument, or as --data")
    return place


def folder_of(path: Path | None) -> str | None:
    """Return a folder as settings hold it."""
    return None if path is None else str(path)


def kept_in(cache: Path | None) -> str:
    """Say what a stop leaves of a run that keeps its features in ``cache``."""
    return "" if cache is None else f"what was computed is kept in {cache}; the same command goes on"


def numbers_of(text: str) -> list[int]:
    """Read ``500,750`` as whole numbers above 0; anything else is a UsageError."""
    parts = parse_names(text)
    if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"whole numbers above 0 with commas between them are needed, not '{text}'")
    return [int(part) for part in parts]


def weights_by_metric(texts: Sequence[str] | None, names: Sequence[str]) -> dict[str, str]:
    """Read ``DIR`` (for every metric) and ``METRIC=DIR`` as a folder by metric; an ensemble's members count too."""
    names = [*names, *(member for name in names for member in describe_metric(name).members)]
    found: dict[str, str] = {}
    for text in texts or []:
        name, equals, folder = text.partition("=")
        if equals and name in names:
            found[name] = folder
        elif equals and not Path(text).exists():
            raise UsageError(f"--weights {text}: '{name}' is none of the metrics asked for ({', '.join(names)})")
        else:
            found = {**dict.fromkeys(names, text), **found}
    return found


def load_all(
    names: Sequence[str],
    settings: MetricSettings,
    weights: Mapping[str, str],
    device: str,
    offline: bool,
    published: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Metric]:
    """Load metrics by name; ``published`` holds settings of a benchmark for some of them.

    An ensemble is made of its members, which share what else was asked for.
    """
    from retrieval.devices.selection import choose_device
    from retrieval.metrics.ensemble import load_ensemble

    place = choose_device(device)
    loaded: dict[str, Metric] = {}

    def load(name: str) -> Metric:
        folder = {"weights": weights[name]} if name in weights else {}
        own = replace(settings, **{**folder, **(published or {}).get(name, {})})
        return load_metric(name, own, place, offline)

    for field in sorted(set.intersection(*(unused_settings(name, settings) for name in names))):
        say(f"note: {_OPTIONS.get(field, f'--{field}')} changes nothing of {', '.join(names)}")
    for name in names:
        members = describe_metric(name).members
        if members:
            loaded[name] = load_ensemble(members, {member: load(member) for member in members})
        else:
            loaded[name] = load(name)
    return loaded
