"""Odd files show what they hold, within 2 grey levels in the mean, or are refused with words that name them."""

import numpy as np
import pytest

from retrieval.errors import ImageError
from retrieval.images.decoding import DecodeRules, decode_bytes
from tests.images.odd.cases import MAKERS
from tests.images.odd.picture import MEAN_TOLERANCE, Case

LEAST = 200


def fault(case: Case) -> str:
    """Return what is wrong with how a file is read; empty if nothing is."""
    try:
        image, _ = decode_bytes(case.data, "x", DecodeRules())
    except ImageError as error:
        if case.shown is None and all(word in str(error) for word in case.words):
            return ""
        return f"refused: {error}"
    if case.shown is None:
        return "shown, though its pixels can't be right"
    got = np.asarray(image).astype(float)
    if got.shape != case.shown.shape:
        return f"has the shape {got.shape}"
    difference = np.abs(got - case.shown)[: int(len(got) * case.rows)].mean()
    return "" if difference <= MEAN_TOLERANCE else f"differs by {difference:.1f}"


@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd metadata
@pytest.mark.parametrize("maker", MAKERS)
def test_odd_files_are_shown_or_named(maker: str) -> None:
    cases = list(MAKERS[maker]())
    assert len({case.name for case in cases}) == len(cases) > 0
    faults = {case.name: fault(case) for case in cases}
    assert {name: what for name, what in faults.items() if what} == {}


def test_there_are_many_odd_files() -> None:
    assert sum(1 for make in MAKERS.values() for _ in make()) >= LEAST
