"""Results of a search, and their one JSON schema for the command line, Python and HTTP."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, overload

from retrieval.errors import DependencyError
from retrieval.text import printable
from retrieval.types import Fractions

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1


@dataclass(frozen=True)
class ModeScore:
    """A result's score in another mode than that of the search."""

    mode: str
    score: float  # exact, in [-1, 1]
    percentile: float
    one_in: int


@dataclass(frozen=True)
class Result:
    """One neighbour. ``score`` is None when the ranking of the first stage alone was asked for."""

    rank: int  # from 1
    id: int
    path: str
    score: float | None  # exact DiffSim in [-1, 1], or mse, where lower is closer
    coarse_score: float | None  # mean cosine over the mode's encoders; None: the image has no vector
    coarse_rank: int | None  # place among the first stage's candidates, from 1; None when every image was scored
    sha256: str = field(repr=False, default="")
    # Where it has the region of the question (of its first region), as fractions; None: no region, or no exact score.
    found_box: Fractions | None = None
    is_gone: bool = False  # there was no file at its path when the search ended
    # How many of 100 random pairs of the index score less; None: percentiles are unknown, or not of this question.
    percentile: float | None = None
    one_in: int | None = None  # one in so many random pairs scores at least so much
    other_modes: tuple[ModeScore, ...] = ()  # where the search weighs further modes
    order_key: float | None = None  # what the order went by, higher first; None: the score

    @property
    def shown_score(self) -> float:
        """The score that decides the order."""
        if self.score is not None:
            return self.score
        return float("nan") if self.coarse_score is None else self.coarse_score

    @property
    def percentiles(self) -> tuple[float, ...]:
        """The percentile in the mode of the search, if it is known, and those in further modes."""
        own = () if self.percentile is None else (self.percentile,)
        return (*own, *(found.percentile for found in self.other_modes))


@dataclass(frozen=True)
class Note:
    """One thing that a user should know about a search; ``str(note)`` is its sentence."""

    kind: str  # one stable word for scripts
    message: str  # a sentence without its full stop
    advice: str = ""  # a word for what helps, as in :class:`retrieval.errors.DiffSimError`
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Results:
    """Neighbours, closest first, and how they were found."""

    results: tuple[Result, ...]
    query: Mapping[str, Any]
    mode: str
    index: Mapping[str, Any]
    timing_ms: Mapping[str, float]  # by step, and their sum as "total"
    notes: tuple[Note, ...] = ()
    filter: Mapping[str, Any] | None = None  # its parts, and how many "images" pass it; None: there is no filter
    computed: int = 0  # candidates whose tensors were not in the index and were computed by this search
    cached: int = 0  # candidates whose tensors an earlier search computed and kept
    left_out: int = 0  # candidates without tensors whose files are gone or have changed: they are not results

    def __post_init__(self) -> None:
        total = sum(spent for step, spent in self.timing_ms.items() if step != "total")
        object.__setattr__(self, "timing_ms", {**self.timing_ms, "total": total})

    @overload
    def __getitem__(self, position: int) -> Result: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Result]: ...
    def __getitem__(self, position: int | slice) -> Result | Sequence[Result]:
        return self.results[position]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    @property
    def is_coarse(self) -> bool:
        """Whether the first stage alone ranked these; False where nothing was found."""
        return any(result.score is None for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: the fields by name, and ``{"schema": 1}``.

        Times are in ms. Queries that :meth:`retrieval.Engine.search_many` searches together share their mean.
        """
        return {
            "schema": SCHEMA,
            "index": dict(self.index),
            "query": dict(self.query),
            "mode": self.mode,
            "filter": None if self.filter is None else dict(self.filter),
            "timing_ms": {name: round(value, 2) for name, value in self.timing_ms.items()},
            "computed": self.computed,
            "cached": self.cached,
            "left_out": self.left_out,
            "notes": [note.message for note in self.notes],
            "results": [asdict(result) for result in self.results],
        }

    def to_pandas(self) -> "pd.DataFrame":
        """Return a data frame with one row a neighbour.

        Raises:
            DependencyError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise DependencyError("pandas is not installed: install it, or use to_dict()") from error
        return pd.DataFrame([asdict(result) for result in self.results])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{r.rank}</td><td>{r.shown_score:.4f}</td><td>{escape(printable(r.path))}</td></tr>"
            for r in self.results
        )
        head = "<tr><th>rank</th><th>score</th><th>path</th></tr>"
        return f"<table><caption>{escape(self.mode)}</caption>{head}{rows}</table>"
