"""Compare two indexed images: whether one is a copy of the other, and how it was changed."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from retrieval.grouping.agreement import Agreement, agree
from retrieval.grouping.alignment import SYMMETRIES, align, core_fits, fitted, turn, whole_fits
from retrieval.grouping.pictures import SQUARE, Grey, GreyPicture, unit_squares

WHOLE_FITS = 0.8  # correlation of whole squares from which larger pictures are compared
CORE_FITS = 0.8  # the same of the middle of one in the other
TURNED_FITS = 0.7  # the same of a turned middle
SAME_SHAPE = 0.05  # relative difference of two aspect ratios that may still show the same cut
LIGHTER = 8.0  # grey levels of mean brightness that count as a change of light
CONTRAST = 1.12  # ratio of spreads that counts as one
SMALL_CUT = 0.5  # of the area: a smaller cut must agree in nearly all of its structure
NEARLY_ALL = 0.9
ALTERED = 0.95  # share of agreeing structure below which a part was altered


@dataclass(frozen=True)
class Verdict:
    """How image b relates to image a."""

    agreement: Agreement
    symmetry: int  # see retrieval.grouping.alignment.SYMMETRIES

    @property
    def share(self) -> float:
        """The share of structure that agrees; 0 if each shows a part that the other lacks."""
        return 0.0 if self.agreement.extent == "overlapping" else self.agreement.share

    def is_copy(self, same: float) -> bool:
        """Say whether b is a copy of a: the share is ``same`` or more, and nearly 1 for a cut to less than half.

        A subject on an empty ground has little structure, and another photograph of it can fit at some size.
        """
        return self.share >= (same if self.agreement.covers >= SMALL_CUT else max(same, NEARLY_ALL))

    @property
    def shows_more(self) -> bool:
        """Whether b is the better cut: it shows more than a, or it lacks a border that a has."""
        extent, border = self.agreement.extent, self.agreement.border
        return (extent == "around" and not border) or (extent == "inside" and border)

    def changes(self, kept: GreyPicture, copy: GreyPicture) -> tuple[str, ...]:
        """Return in words how the copy b differs from the kept picture a, as far as pixels tell."""
        agreement, said = self.agreement, [SYMMETRIES[self.symmetry]]
        if agreement.extent == "inside":
            said.append("border cut off" if agreement.border else f"crop to {100 * agreement.covers:.0f} % of the area")
        elif agreement.extent == "around":
            said.append("border" if agreement.border else "shows more")
        if kept.is_coloured and not copy.is_coloured:
            said.append("grey")
        if abs(agreement.lighter) > LIGHTER or not 1 / CONTRAST < agreement.contrast < CONTRAST:
            said.append("other light")
        if agreement.share < ALTERED and agreement.extent == "equal":
            said.append(f"altered in {100 * (1 - agreement.share):.0f} % of its structure")
        return tuple(filter(None, said))


def compare(a: GreyPicture, b: GreyPicture, enough: float = ALTERED) -> Verdict:
    """Compare picture b with a, in the symmetry of b that fits best, at the place in a that fits best.

    A share of ``enough`` where both show the same cut ends the search for another place.
    """
    found = [
        Verdict(agreement, symmetry)
        for symmetry in _symmetries(a, b)
        for agreement in _compared(a, b, symmetry, enough)
    ]
    return max(found, key=lambda verdict: (verdict.share, -verdict.symmetry))


def _symmetries(a: GreyPicture, b: GreyPicture) -> list[int]:
    """Return the symmetries of b to look at: one if whole squares fit, else those whose middle fits best."""
    first, second = _square_of(a.grey), _square_of(b.grey)
    whole, symmetry = whole_fits(first[None], second[None])
    if whole[0] >= WHOLE_FITS:
        return [int(symmetry[0])]
    if max(core_fits(first[None], second[None])[0], core_fits(second[None], first[None])[0]) >= CORE_FITS:
        return [0]
    same, turned = np.repeat(first[None], 8, 0), np.stack([turn(second, number) for number in range(8)])
    fits = np.maximum(core_fits(same, turned), core_fits(turned, same))
    best = np.argsort(-fits, kind="stable")[:2].tolist()
    return [number for number in best if fits[number] > TURNED_FITS] or best[:1]


def _compared(a: GreyPicture, b: GreyPicture, symmetry: int, enough: float) -> list[Agreement]:
    turned, found = turn(b.grey, symmetry), list[Agreement]()
    shapes = [picture.shape[0] / picture.shape[1] for picture in (a.grey, turned)]
    if abs(shapes[0] / shapes[1] - 1) < SAME_SHAPE:
        found.append(agree(a.grey, turned, fitted(a.grey, turned)))
        if found[0].share >= enough:
            return found
    return [*found, agree(a.grey, turned, align(a.grey, turned))]


def _square_of(grey: Grey) -> Grey:
    """Return a picture as a square of mean 0 and length 1, as candidates are compared; a flat one is 0."""
    square = np.asarray(Image.fromarray(grey).resize((SQUARE, SQUARE), Image.Resampling.BOX), np.float32)
    found: Grey = unit_squares(square[None])[0]
    return found
