"""How attention outputs are read before they are compared. Data only: imports nothing heavy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Readout:
    """How outputs are read before they are compared, elementwise: ``x``, or ``sqrt(max(x, 0) + floor)`` with a root.

    The published score reads them as they are. The root is for values that are histograms: the cosine of two roots is
    Bhattacharyya's coefficient, and the floor keeps empty bins comparable.
    """

    root: bool = False
    floor: float = 0.0


LINEAR = Readout()
