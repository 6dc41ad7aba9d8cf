"""Compare two indexed images: is one a copy of the other, and what was done to it?"""

from dataclasses import dataclass

import numpy as np

from retrieval.grouping.agreement import Agreement, agree
from retrieval.grouping.alignment import SYMMETRIES, align, core_fits, fitted, turn, whole_fits
from retrieval.grouping.pictures import Grey, Picture, Pictures

WHOLE_FITS = 0.8  # correlation of whole squares from which larger pictures are compared
CORE_FITS = 0.8  # the same of the middle of one in the other
SAME_SHAPE = 0.05  # relative difference of two aspect ratios that may still show the same cut
LIGHTER = 8.0  # grey levels of mean brightness that count as a change of light
CONTRAST = 1.12  # ratio of spreads that counts as one
ALTERED = 0.95  # share of agreeing structure below which a part was altered
SMALLER = 0.9  # ratio of sides below which a copy is smaller


@dataclass(frozen=True)
class Verdict:
    """How image b relates to image a."""

    agreement: Agreement
    symmetry: int

    @property
    def share(self) -> float:
        """The share of structure that agrees; 0 if one shows parts that the other lacks, and the other way around."""
        return 0.0 if self.agreement.extent == "overlapping" else self.agreement.share

    @property
    def shows_more(self) -> bool:
        """Whether b is the better cut: it shows more than a, or it has no border where a has one."""
        extent, border = self.agreement.extent, self.agreement.border
        return (extent == "around" and not border) or (extent == "inside" and border)


def compare(a: Picture, b: Picture) -> Verdict:
    """Compare picture b with a, in the symmetry of b that fits best, at the place in a that fits best."""
    found = [Verdict(agreement, symmetry) for symmetry in _symmetries(a, b) for agreement in _compared(a, b, symmetry)]
    return max(found, key=lambda verdict: (verdict.share, -verdict.symmetry))


def _symmetries(a: Picture, b: Picture) -> list[int]:
    """Return the symmetries of b to look at: one if whole squares fit, else those whose middle fits best."""
    first, second = square_of(a.grey), square_of(b.grey)
    whole, symmetry = whole_fits(first[None], second[None])
    if whole[0] >= WHOLE_FITS:
        return [int(symmetry[0])]
    turned = np.stack([turn(second, number) for number in range(8)])
    fits = np.maximum(core_fits(np.repeat(first[None], 8, 0), turned), core_fits(turned, np.repeat(first[None], 8, 0)))
    return [number for number in np.argsort(-fits, kind="stable")[:2].tolist() if number == 0 or fits[number] > 0.7] or [0]


def _compared(a: Picture, b: Picture, symmetry: int) -> list[Agreement]:
    turned = turn(b.grey, symmetry)
    shapes = [picture.shape[0] / picture.shape[1] for picture in (a.grey, turned)]
    if abs(shapes[0] / shapes[1] - 1) < SAME_SHAPE:
        whole = agree(a.grey, turned, fitted(a.grey, turned))
        if whole.share > ALTERED:
            return [whole]
        return [whole, agree(a.grey, turned, align(a.grey, turned))]
    return [agree(a.grey, turned, align(a.grey, turned))]


def square_of(grey: Grey) -> Grey:
    """Return a picture as a square of mean 0 and length 1, as candidates are compared."""
    from PIL import Image

    from retrieval.grouping.pictures import SQUARE

    square = np.asarray(Image.fromarray(grey).resize((SQUARE, SQUARE), Image.Resampling.BOX), np.float32)
    centred = square - square.mean()
    length = float(np.linalg.norm(centred))
    return centred / length if length > SQUARE else np.zeros_like(centred)


def changes(kept: Picture, copy: Picture, verdict: Verdict) -> tuple[str, ...]:
    """Return in words how a copy differs from the kept picture, as far as pixels tell."""
    agreement = verdict.agreement
    said = [SYMMETRIES[verdict.symmetry]]
    if agreement.extent == "inside":
        said.append("border cut off" if agreement.border else f"crop of {100 * agreement.covers:.0f} %")
    elif agreement.extent == "around":
        said.append("border" if agreement.border else "shows more")
    if kept.is_coloured and not copy.is_coloured:
        said.append("grey")
    if not agreement.border and (
        abs(agreement.lighter) > LIGHTER or not 1 / CONTRAST < agreement.contrast < CONTRAST
    ):
        said.append("other light")
    if agreement.share < ALTERED:
        said.append(f"altered in {100 * (1 - agreement.share):.0f} % of its structure")
    return tuple(filter(None, said))


def candidates_of(pictures: Pictures, first: int, second: int) -> tuple[Picture, Picture] | None:
    """Return the pictures of two rows; None unless both can be read."""
    one, other = pictures.of(first), pictures.of(second)
    return None if one is None or other is None else (one, other)
