"""The options that say which images a search may find."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.search import options
from retrieval.errors import UsageError

if TYPE_CHECKING:
    from retrieval.search.filters.filter import Filter


@dataclass(frozen=True, kw_only=True)
class FilterOptions:
    """Which images may be results."""

    under: options.Under = None
    glob: options.Glob = None
    newer: options.Newer = None
    older: options.Older = None
    source: options.Source = None
    where: options.Where = None
    metadata: options.Metadata = None

    def filter(self) -> "Filter | None":
        """Return the library's filter; None if no option was given.

        Raises:
            UsageError: a time that can't be read, or one of --where and --metadata alone.
        """
        given = {name: value for name, value in vars(self).items() if value is not None}
        if not given:
            return None
        if (self.where is None) != (self.metadata is None):
            raise UsageError("--where needs a table, and --metadata a condition: give both")
        from retrieval.search.filters.filter import Filter

        return Filter(**given)
