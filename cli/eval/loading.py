"""Shared by the sub-commands of ``diffsim-eval``: metrics, data and weights named on the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cli.eval.option_groups import MetricOptions
from cli.parsing import parse_names
from cli.terminal.process import Speaker
from retrieval.errors import UsageError
from retrieval.metrics.base import Metric
from retrieval.metrics.registry import describe_metric, load_metric, unused_settings

_OPTIONS = {"denoising_step": "--step"}  # settings whose option has another name


def chosen_metrics(texts: Sequence[str]) -> list[str]:
    """Read ``cells,ssim`` and repeated options as names, each once.

    Raises:
        UsageError: no name, or an unknown one.
    """
    names = list(dict.fromkeys(name for text in texts for name in parse_names(text)))
    if not names:
        raise UsageError("--metric needs a name; list them with: diffsim-eval list")
    for name in names:
        describe_metric(name)
    return names


def weights_by_metric(texts: Sequence[str] | None, names: Sequence[str]) -> dict[str, str]:
    """Read ``DIR`` (for every metric) and ``METRIC=DIR`` as a folder per metric and per member of an ensemble."""
    names = [*names, *(member for name in names for member in describe_metric(name).members)]
    found: dict[str, str] = {}
    for text in texts or []:
        name, equals, folder = text.partition("=")
        if equals and name in names:
            found[name] = folder
        elif equals and not Path(text).exists():
            raise UsageError(f"--weights {text}: '{name}' is not among the metrics asked for ({', '.join(names)})")
        else:
            found = {**dict.fromkeys(names, text), **found}
    return found


def load_all(
    names: Sequence[str],
    how: MetricOptions,
    speaker: Speaker,
    published: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Metric]:
    """Load metrics by name, and note options that change nothing of them.

    Args:
        names: metrics; an ensemble is made of its members, which share the other settings.
        how: the options of all metrics.
        speaker: prints the notes.
        published: settings that a benchmark prescribes, by metric.
    """
    from retrieval.devices.selection import choose_device
    from retrieval.metrics.ensemble import load_ensemble

    device, settings, weights = choose_device(how.device), how.settings(), weights_by_metric(how.weights, names)

    def load(name: str) -> Metric:
        folder = {"weights": weights[name]} if name in weights else {}
        own = replace(settings, **{**folder, **(published or {}).get(name, {})})
        return load_metric(name, own, device, how.offline)

    for field in sorted(set.intersection(*(unused_settings(name, settings) for name in names))):
        speaker.note(f"{_OPTIONS.get(field, f'--{field}')} changes nothing of {', '.join(names)}")
    loaded: dict[str, Metric] = {}
    for name in names:
        members = describe_metric(name).members
        loaded[name] = load_ensemble(members, {member: load(member) for member in members}) if members else load(name)
    return loaded
