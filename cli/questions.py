"""From the arguments of a command line to questions: weights, boards, and regions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.option_groups import QuestionOptions
from cli.terminal.printing import read_stdin
from retrieval.errors import UsageError

if TYPE_CHECKING:
    from retrieval.search.engine import Engine
    from retrieval.search.queries.picture import ImageInput
    from retrieval.search.queries.query import QueryInput
    from retrieval.search.queries.region import RegionInput

STDIN = "-"
_WEIGHED = re.compile(r"([0-9]+(?:\.[0-9]+)?):(.+)", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """One question as it was typed."""

    images: Sequence[str]  # with weights, like 2:a.jpg, where there are several
    options: QuestionOptions
    is_board: bool = False  # whether the options make this more than one whole image

    @property
    def name(self) -> str:
        """The question in messages and in the output."""
        return " ".join(self.images)

    def find(self, engine: "Engine") -> "QueryInput":
        """Return the question that an engine takes.

        Raises:
            UsageError: an image is not found, or numbers make no sense.
        """
        if not self.is_board:
            return _find(self.images[0], engine)
        from retrieval.search.queries.query import Query

        weights, images = _weighed(self.images)
        minus_weights, minus = _weighed(self.options.away or [])
        return Query(
            [_find(image, engine) for image in images],
            weights,
            [_find(image, engine) for image in minus],
            minus_weights,
            self.options.combine or "mean",
            _regions(self.options, len(images)),
        )


def questions_of(queries: Sequence[str], options: QuestionOptions) -> list[Question]:
    """Return the questions that the arguments ask: one each, or one of all if they are combined.

    Raises:
        UsageError: stdin more than once, or options that do not fit the number of images.
    """
    away = options.away or []
    if sum(_split(text)[1] == STDIN for text in (*queries, *away)) > 1:
        raise UsageError(f"{STDIN} (stdin) may be given once")
    if (options.box is not None) + (options.mask is not None) + options.subject > 1:
        raise UsageError("choose one of --box, --mask and --subject")
    if options.has_region and len(queries) > 1:
        raise UsageError(f"--box and --mask are of one image, and {len(queries)} queries were given")
    if away and len(queries) > 1 and options.combine is None:
        raise UsageError("--not needs one question: combine the queries with --combine")
    if options.combine is not None or away or options.has_region:
        return [Question(queries, options, is_board=True)]
    weighed = next((text for text in queries if _split(text)[0] is not None), None)
    if weighed is not None:
        raise UsageError(f"no such file: {weighed}; a weight counts among images of one question, see --combine")
    return [Question([text], options, is_board=options.subject) for text in queries]


def _split(text: str) -> tuple[float | None, str]:
    """Split ``2:a.jpg`` into weight and image; a file of that very name is no weight."""
    found = _WEIGHED.fullmatch(text)
    if found is None or Path(text).exists():
        return None, text
    return float(found[1]), found[2]


def _weighed(texts: Sequence[str]) -> tuple[list[float] | None, list[str]]:
    """Return weights and images; an image without a weight has 1, and None stands for all alike."""
    split = [_split(text) for text in texts]
    weights = [1.0 if weight is None else weight for weight, _ in split]
    return None if all(weight is None for weight, _ in split) else weights, [image for _, image in split]


def _find(text: str, engine: "Engine") -> "ImageInput":
    return read_stdin() if text == STDIN else Path(engine.locate(text))


def _regions(options: QuestionOptions, images: int) -> "list[RegionInput] | None":
    """Return the region of each image of a question; None: all are whole."""
    from retrieval.search.queries.region import Subject

    if options.subject:
        return [Subject() for _ in range(images)]
    return [_region(options)] if options.has_region else None


def _region(options: QuestionOptions) -> "RegionInput":
    from retrieval.search.queries.region import Box, Mask

    if options.mask is not None:
        return Mask(options.mask)
    text = options.box or ""
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        like = "10,20,200,150 in pixels, or 0.1,0.2,0.5,0.4 as fractions"
        raise UsageError(f"'{text}' is not a box: write x,y,width,height, like {like}") from error
    return Box(x, y, width, height)
