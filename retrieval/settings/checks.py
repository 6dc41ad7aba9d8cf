"""Checks of numbers that several settings share."""

from retrieval.errors import UsageError


def at_least(least: int, **values: float | None) -> None:
    """Raise a UsageError that names the first of ``values`` below ``least`` or NaN; None passes."""
    for name, value in values.items():
        if value is not None and not value >= least:
            raise UsageError(f"{name.replace('_', ' ')} must be at least {least}, not {value}")
