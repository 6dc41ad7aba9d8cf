"""What runs every time, and what runs in ``make test-slow``: a slice of a table of cases, and all of it."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest

EVERY = bool(os.environ.get("DIFFSIM_TEST_EVERY"))

loads_model_libraries = pytest.mark.xdist_group("model_libraries")
"""Importing diffusers and transformers takes ten seconds of a core: these tests share one of several processes."""

reads_every_source = pytest.mark.xdist_group("sources")
"""Parsing each file of the project takes seconds: these tests share the trees of one process."""


def slice_of(cases: Iterable[tuple[Any, ...]], is_kept: Callable[..., bool]) -> list[Any]:
    """Return the cases for ``pytest.mark.parametrize``; those that ``is_kept`` refuses are marked slow."""
    return [case if is_kept(*case) else pytest.param(*case, marks=pytest.mark.slow) for case in cases]


def examples(count: int) -> int:
    """Return how many examples hypothesis draws: a quarter of ``count``, or all with DIFFSIM_TEST_EVERY."""
    return count if EVERY else max(5, count // 4)
