"""Groups of options that several commands share, each turned into one settings object of the library.

Typer wants one parameter per option. :func:`expand_groups` lets a command name a group instead: a dataclass whose
fields are options.
"""

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any, get_type_hints

from cli import options
from cli.output import Form, choose_form
from cli.parsing import parse_bytes, parse_encoders
from cli.search import options as search_options
from cli.terminal.process import Speaker, log_to_stderr
from retrieval.settings import EngineSettings, SearchChoices, SearchSettings

_ENGINE, _SEARCH = EngineSettings(), SearchSettings()


def expand_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return ``command`` with the options of its groups as parameters, in the order of their fields."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)
    }
    parameters: list[inspect.Parameter] = []
    for given in inspect.signature(command).parameters.values():
        if given.name in groups:
            parameters += inspect.signature(groups[given.name], eval_str=True).parameters.values()
        else:
            parameters.append(given.replace(annotation=hints[given.name]))

    @wraps(command)
    def expanded(**values: Any) -> None:
        made = {
            name: kind(**{field.name: values.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        command(**values, **made)

    keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    expanded.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in keywords}
    del expanded.__wrapped__  # typer would read the annotations of ``command``
    return expanded


def text_of(path: Path | None) -> str | None:
    """Return a folder as settings hold it."""
    return None if path is None else str(path)


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Speech:
    """How much a command says."""

    quiet: options.Quiet = False
    verbose: options.Verbose = 0

    def speaker(self) -> Speaker:
        """Return the command's voice on stderr, and let the library log there if ``verbose``."""
        if self.verbose:
            log_to_stderr(logging.INFO if self.verbose == 1 else logging.DEBUG)
        return Speaker(self.quiet, self.verbose > 0)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where models run, and whether they may come from the hub."""

    device: options.Device = _ENGINE.device
    offline: options.Offline = False


@dataclass(frozen=True, kw_only=True)
class EngineOptions(Place):
    """Where and how a search engine runs."""

    weights: options.Weights = None
    encoders: options.EncoderFolders = None
    max_cache: options.MaxCache = None
    max_pixels: options.MaxPixels = _ENGINE.max_pixels

    def settings(self, queries: int) -> EngineSettings:
        """Return the library's settings for a process that ends after so many queries."""
        return EngineSettings(
            device=self.device,
            weights=text_of(self.weights),
            encoders={} if self.encoders is None else parse_encoders(self.encoders),
            offline=self.offline,
            max_cache=_ENGINE.max_cache if self.max_cache is None else parse_bytes(self.max_cache),
            max_pixels=self.max_pixels,
            memory=0 if queries == 1 else None,  # nobody would read what a single query left in memory
        )


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """How the images of a search become questions."""

    combine: options.CombineImages = None
    away: options.Away = None
    same: options.SameIn = None
    box: options.BoxOf = None
    mask: options.MaskOf = None
    subject: options.SubjectOf = False

    @property
    def has_region(self) -> bool:
        """Whether a part of one image asks."""
        return self.box is not None or self.mask is not None


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How a search is run."""

    k: options.Top = _SEARCH.k
    candidates: options.Candidates = _SEARCH.candidates
    exhaustive: options.Exhaustive = False
    no_rerank: options.NoRerank = False
    text_share: search_options.TextShare = _SEARCH.text_share
    similarity: options.Similarity = _SEARCH.similarity
    min_score: options.MinScore = None
    exclude_self: search_options.ExcludeSelf = False
    exclude_copies: search_options.ExcludeCopies = False
    min_percentile: search_options.MinPercentile = None
    look_closer: search_options.LookCloser = 0
    scaling: search_options.ScalingOf = None

    def choices(self, mode_weights: Mapping[str, float] | None = None) -> SearchChoices:
        """Return the library's choices, with the weights of further modes."""
        return {
            "mode_weights": mode_weights or {},
            "k": self.k,
            "candidates": self.candidates,
            "exhaustive": self.exhaustive,
            "rerank": not self.no_rerank,
            "text_share": self.text_share,
            "similarity": self.similarity,
            "min_score": self.min_score,
            "exclude_self": self.exclude_self,
            "exclude_copies": self.exclude_copies,
            "min_percentile": self.min_percentile,
            "look_closer": self.look_closer,
            "scaling": self.scaling,
        }


@dataclass(frozen=True, kw_only=True)
class FormOptions:
    """The form in which results are printed."""

    as_json: options.AsJson = False
    as_jsonl: options.AsJsonl = False
    paths: options.Paths = False
    null: options.Null = False

    def form(self) -> Form:
        """Return the one form that was asked for; several are a UsageError."""
        return choose_form(**vars(self))
