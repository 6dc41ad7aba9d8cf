"""One question to an index: an image or its region, or a board of several, and images to move away from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from retrieval.errors import UsageError
from retrieval.images.decoding import DecodeRules
from retrieval.search.queries.cutting import read_region
from retrieval.search.queries.picture import ImageInput, Picture
from retrieval.search.queries.region import RegionInput
from retrieval.types import Combine

MOST_IMAGES = 64  # of one question: each is encoded, and scored against all candidates


@dataclass(frozen=True, eq=False)
class Query:
    """One question, of one image or several.

    The score of a candidate is ``combined - 0.5 mean_j(w_j s_j)``: ``combined`` joins the images as ``combine`` says,
    and ``s_j`` are the scores of the images to move away from. A region looks for itself in the whole candidate: its
    score is that of one direction, from the region to the candidate.

    Raises:
        UsageError: no image, more than 64, another number of weights or regions than of images, or a weight that is
            not a finite number above 0.
    """

    images: Sequence[ImageInput | Picture] = ()
    weights: Sequence[float] | None = None  # of ``images``; None: all alike. Only their ratios matter
    minus: Sequence[ImageInput | Picture] = ()  # images to move away from
    minus_weights: Sequence[float] | None = None  # of ``minus``; None: 1 each. Twice the weight pushes twice as far
    combine: Combine = "mean"
    regions: Sequence[RegionInput] | None = None  # of ``images``; None: all whole. A question that was read has None
    texts: Sequence[str] = ()  # without images they ask; beside images they choose which images these may find

    def __post_init__(self) -> None:
        if not self.images and (self.minus or not self.texts):
            raise UsageError("a question needs one image at least that results should be like, or texts alone")
        if any(not text.strip() for text in self.texts):
            raise UsageError("a text of a question is empty")
        if len(self.images) + len(self.minus) > MOST_IMAGES:
            raise UsageError(f"a question has at most {MOST_IMAGES} images, not {len(self.images) + len(self.minus)}")
        if self.combine not in get_args(Combine):
            raise UsageError(f"unknown way to combine '{self.combine}'; known: {', '.join(get_args(Combine))}")
        _check_weights(self.weights, len(self.images))
        _check_weights(self.minus_weights, len(self.minus))
        if self.regions is not None and len(self.regions) != len(self.images):
            raise UsageError(
                f"{len(self.regions)} regions were given for {len(self.images)} images: give None for whole"
            )
        if self.combine == "max" and len(set(self.image_weights)) > 1:
            raise UsageError("the closest of several images takes no weights: combine by mean or union instead")

    @property
    def image_weights(self) -> tuple[float, ...]:
        """The weight of each image."""
        return tuple(self.weights or (1.0,) * len(self.images))

    @property
    def minus_image_weights(self) -> tuple[float, ...]:
        """The weight of each image to move away from."""
        return tuple(self.minus_weights or (1.0,) * len(self.minus))

    @property
    def is_plain(self) -> bool:
        """Whether this is one image and nothing else."""
        return len(self.images) == 1 and not self.minus

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures of a question that was read: its images, then those to move away from."""
        return tuple(cast("Picture", image) for image in (*self.images, *self.minus))

    @property
    def is_whole(self) -> bool:
        """Whether a question that was read has no region."""
        return all(picture.region is None and not picture.seeks_subject for picture in self.pictures)

    def read(self, rules: DecodeRules) -> "Query":
        """Decode all images by the rules of the index that is searched, and cut out regions; pictures stay as they are.

        Raises:
            ImageError: an image can't be used; the message says why.
            UsageError: a region does not lie inside its image, or a mask has nothing white.
        """
        regions = self.regions or (None,) * len(self.images)
        images = tuple(_read(image, region, rules) for image, region in zip(self.images, regions, strict=True))
        return replace(self, images=images, minus=tuple(_read(each, None, rules) for each in self.minus), regions=None)

    def about(self) -> dict[str, Any]:
        """Return what results say about a question that was read, as JSON values."""
        texts = {"texts": list(self.texts)} if self.texts else {}
        if not self.images:
            return {"path": None, **texts}
        if self.is_plain:
            return {**self.pictures[0].about(), **texts}
        count = len(self.images)
        images, minus = self.pictures[:count], self.pictures[count:]
        return {
            "combine": self.combine,
            "images": _about(images, self.image_weights),
            "minus": _about(minus, self.minus_image_weights),
            **texts,
        }


QueryInput = ImageInput | Picture | Query
"""What a search takes."""


def as_query(given: QueryInput) -> Query:
    """Return a single image as a question."""
    return given if isinstance(given, Query) else Query((given,))


def _read(image: ImageInput | Picture, region: RegionInput, rules: DecodeRules) -> Picture:
    if region is not None:
        return read_region(image, region, rules)
    return image if isinstance(image, Picture) else Picture.read(image, rules)


def _about(pictures: Sequence[Picture], weights: Sequence[float]) -> list[dict[str, Any]]:
    return [{**picture.about(), "weight": weight} for picture, weight in zip(pictures, weights, strict=True)]


def _check_weights(weights: Sequence[float] | None, count: int) -> None:
    if weights is None:
        return
    if len(weights) != count:
        raise UsageError(f"{len(weights)} weights were given for {count} images: give one for each")
    wrong = [weight for weight in weights if not (math.isfinite(weight) and weight > 0)]
    if wrong:
        raise UsageError(f"a weight must be a finite number above 0, not {wrong[0]}")
