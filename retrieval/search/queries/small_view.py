"""A region drawn small on its own mean colour: how a model sees a small subject, without what lies around it.

A network sees other features in a subject of 90 px than in the same one at full size. So a region asks twice: cut out
at full size, and drawn small, where only the tokens on it count.
"""

from dataclasses import dataclass

from PIL import Image, ImageStat

from retrieval.search.queries.picture import Picture
from retrieval.search.queries.region import Region
from retrieval.types import Fractions

SMALL = 0.45  # of a side: the larger side of the drawn region. Chosen on subjects at 40 % of the side
CANVAS_PX = 320  # the long side of the drawing: about 144 px of region, as much as a model of so many pixels can use


@dataclass(frozen=True, eq=False)
class SmallView:
    """A region drawn small, in the proportions of its whole picture."""

    drawing: Image.Image  # RGB
    mask: Image.Image  # mode L, over the drawing: the region, or its own mask
    box: Fractions  # of the region in the drawing


def small_view(picture: Picture, region: Region) -> SmallView:
    """Draw a region small, in the middle.

    Args:
        picture: a cut-out.
        region: of it.
    """
    width, height = (max(1, round(CANVAS_PX * side / max(picture.width, picture.height))) for side in _sides(picture))
    scale = SMALL / max(region.box[2:])
    size = max(1, round(width * region.box[2] * scale)), max(1, round(height * region.box[3] * scale))
    place = (width - size[0]) // 2, (height - size[1]) // 2
    small = picture.image.resize(size, Image.Resampling.LANCZOS)
    drawing = Image.new("RGB", (width, height), tuple(round(mean) for mean in ImageStat.Stat(small).mean))
    drawing.paste(small, place)
    mask = Image.new("L", (width, height), 0)
    white = Image.new("L", size, 255) if region.mask is None else region.mask.resize(size, Image.Resampling.LANCZOS)
    mask.paste(white, place)
    box = (place[0] / width, place[1] / height, size[0] / width, size[1] / height)
    return SmallView(drawing, mask, box)


def _sides(picture: Picture) -> tuple[int, int]:
    """Return width and height, a strip made 8 times as long as it is wide at most."""
    longest = max(picture.width, picture.height)
    return max(picture.width, longest // 8), max(picture.height, longest // 8)
