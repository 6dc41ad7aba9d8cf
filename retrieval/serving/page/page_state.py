"""The state of the page as its address says it: what is asked, how, and which index is shown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from retrieval.errors import UsageError
from retrieval.serving.asking.request_models import SearchRequest

RESULTS = 60  # by default, if the server gives so many
SUBJECT = "subject"  # in place of a box: the model finds it
_IMAGE = re.compile(r"(?:([0-9]{1,6}(?:\.[0-9]{1,6})?):)?(?:id:([0-9]{1,18})|upload:([0-9a-f]{64}))")
# What the form of the page holds beside images; an address names these in this order.
FORM_FIELDS = (
    "mode",
    "compare",
    "combine",
    "box",
    "words",
    "under",
    "glob",
    "k",
    "candidates",
    "exhaustive",
    "exclude_copies",
)
_FIELDS = ("index", *FORM_FIELDS)


@dataclass(frozen=True)
class PageImage:
    """One image of the question: an item or an upload, and its weight."""

    id: int | None = None
    upload: str | None = None
    weight: str = ""  # as it was typed; empty: 1

    @classmethod
    def parse(cls, text: str) -> "PageImage":
        """Read ``id:17``, ``upload:KEY``, or these after a weight, like ``2:id:17``."""
        found = _IMAGE.fullmatch(text)
        if found is None:
            raise UsageError(f"'{text[:100]}' is no image of this page: write id:17")
        weight, number, upload = found.groups()
        return cls(None if number is None else int(number), upload, weight or "")

    @property
    def name(self) -> str:
        """The image without its weight, as the address has it."""
        return f"upload:{self.upload}" if self.id is None else f"id:{self.id}"

    def __str__(self) -> str:
        return f"{self.weight}:{self.name}" if self.weight else self.name

    def fields(self) -> dict[str, Any]:
        """Return the fields of a request."""
        source: dict[str, Any] = {"upload": self.upload} if self.id is None else {"id": self.id}
        return {**source, "weight": float(self.weight)} if self.weight else source


@dataclass(frozen=True, kw_only=True)
class PageState:
    """One address of the page. Its fields are texts as typed; :meth:`request` checks them."""

    index: str = ""
    mode: str = ""
    compare: str = ""  # a second mode, whose results stand beside
    images: tuple[PageImage, ...] = ()
    minus: tuple[PageImage, ...] = ()
    combine: str = ""
    box: str = ""
    k: str = ""
    candidates: str = ""
    exhaustive: str = ""
    exclude_copies: str = ""
    words: str = ""  # a text that asks, or narrows what the images find
    under: str = ""  # a folder
    glob: str = ""  # a pattern of paths

    @classmethod
    def of(cls, given: QueryParams) -> Self:
        """Read an address.

        Raises:
            UsageError: an image that no page names like that.
        """
        words = {name: given.get(name, "") for name in _FIELDS}
        images, minus = (tuple(map(PageImage.parse, given.getlist(name))) for name in ("image", "minus"))
        return cls(**words, images=images, minus=minus)

    @property
    def asks(self) -> bool:
        """Whether there is a question; otherwise the page shows the collection."""
        return bool(self.images or self.words)

    def url(self, path: str = "/", **changes: Any) -> str:
        """Return the address of this state with some fields changed."""
        state = replace(self, **changes)
        pairs = [(name, getattr(state, name)) for name in _FIELDS if getattr(state, name)]
        pairs += [("image", str(image)) for image in state.images] + [("minus", str(image)) for image in state.minus]
        return f"{path}?{urlencode(pairs, safe=':,')}" if pairs else path

    def like(self, number: int) -> str:
        """Return the address that asks with one item alone."""
        return self.url(images=(PageImage(number),), minus=(), box="", combine="")

    def also(self, number: int) -> str:
        """Return the address that asks with one item more."""
        kept = tuple(image for image in self.minus if image.id != number)
        return self.url(images=_with(self.images, number), minus=kept, box="")

    def away(self, number: int) -> str:
        """Return the address that moves away from one item."""
        kept = tuple(image for image in self.images if image.id != number) or self.images
        return self.url(images=kept, minus=_with(self.minus, number))

    def without(self, position: int, away: bool = False) -> str:
        """Return the address without one of the images, or of those to move away from."""
        if away:
            return self.url(minus=self.minus[:position] + self.minus[position + 1 :])
        left = self.images[:position] + self.images[position + 1 :]
        return self.url(images=left, box="", minus=self.minus if left else ())

    def request(self, mode: str, results: int) -> SearchRequest:
        """Return the request for one mode; ``results`` are asked for where the address names no number.

        Raises:
            UsageError, ValidationError: a field that makes no sense.
        """
        images = [image.fields() for image in self.images]
        if self.box == SUBJECT and images:
            images[0]["subject"] = True
        elif self.box and images:
            images[0]["box"] = _box(self.box)
        return SearchRequest.model_validate(
            {
                "index": self.index or None,
                "mode": mode or None,
                "images": images,
                "minus": [image.fields() for image in self.minus],
                "combine": self.combine or "mean",
                "k": _whole("k", self.k) or results,
                "candidates": _whole("candidates", self.candidates),
                "exhaustive": bool(self.exhaustive),
                "exclude_copies": bool(self.exclude_copies),
                "texts": [self.words] if self.words else [],
                "under": [self.under] if self.under else [],
                "glob": [self.glob] if self.glob else [],
            }
        )


def _with(images: Sequence[PageImage], number: int) -> tuple[PageImage, ...]:
    return tuple(images) if any(image.id == number for image in images) else (*images, PageImage(number))


def _box(text: str) -> tuple[float, ...]:
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"'{text[:100]}' is not a box: write x,y,width,height, like 0.1,0.2,0.5,0.4") from error
    return x, y, width, height


def _whole(name: str, text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or not 1 <= int(text[:20]) < 2**63:
        raise UsageError(f"{name} must be a whole number above 0, not '{text[:20]}'")
    return int(text)
