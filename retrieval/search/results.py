"""What a search returns, and its one JSON schema for the command line, Python and HTTP."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, overload

from retrieval.errors import DependencyError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1


@dataclass(frozen=True)
class Result:
    """One neighbour. ``score`` is None when the coarse ranking was asked for."""

    rank: int  # from 1
    id: int
    path: str
    score: float | None  # exact DiffSim (or mse, lower is closer)
    coarse_score: float | None  # mean cosine over the mode's encoders; None without a coarse stage
    coarse_rank: int | None  # from 1; None when every image was scored
    sha256: str = field(repr=False, default="")

    @property
    def shown_score(self) -> float:
        """The score that the order follows."""
        if self.score is not None:
            return self.score
        return float("nan") if self.coarse_score is None else self.coarse_score


@dataclass(frozen=True)
class Results:
    """Neighbours, closest first, with everything needed to know how they came about."""

    results: tuple[Result, ...]
    query: Mapping[str, Any]
    mode: str
    index: Mapping[str, Any]
    timing_ms: Mapping[str, float]
    notes: tuple[str, ...] = ()  # one line each that the user should read
    computed: int = 0  # candidates whose tensors the index lacked, computed by this search ...
    cached: int = 0  # ... or by an earlier one
    left_out: int = 0  # candidates without tensors whose files are gone or have changed: not among the results

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
        """Whether these are ranked by the coarse stage alone; False where nothing was found."""
        return any(result.score is None for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: the fields by name, ``{"schema": 1}``, and the sum of the times as ``total``.

        Of queries that were searched together (:meth:`retrieval.Engine.search_many`), times are means.
        """
        timing = {**self.timing_ms, "total": sum(self.timing_ms.values())}
        return {
            "schema": SCHEMA,
            "index": dict(self.index),
            "query": dict(self.query),
            "mode": self.mode,
            "timing_ms": {name: round(value, 2) for name, value in timing.items()},
            "computed": self.computed,
            "cached": self.cached,
            "left_out": self.left_out,
            "notes": list(self.notes),
            "results": [asdict(result) for result in self.results],
        }

    def to_pandas(self) -> "pd.DataFrame":
        """Return a data frame, a row a neighbour."""
        try:
            import pandas as pd
        except ImportError as error:
            raise DependencyError("pandas is not installed; install it, or use to_dict()") from error
        return pd.DataFrame([asdict(result) for result in self.results])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{r.rank}</td><td>{r.shown_score:.4f}</td><td>{escape(r.path)}</td></tr>" for r in self.results
        )
        head = "<tr><th>rank</th><th>score</th><th>path</th></tr>"
        return f"<table><caption>{escape(self.mode)}</caption>{head}{rows}</table>"
