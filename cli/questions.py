"""From the arguments of a command line to questions: weights, boards, and regions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.option_groups import QuestionOptions
from cli.terminal.printing import read_stdin
from retrieval.errors import UsageError
from retrieval.settings import UNLIKE_WEIGHT

if TYPE_CHECKING:
    from retrieval.search.engine import Engine
    from retrieval.search.queries.picture import ImageInput
    from retrieval.search.queries.query import QueryInput
    from retrieval.search.queries.region import RegionInput

STDIN, TEXT = "-", "text:"
_WEIGHED = re.compile(r"([0-9]+(?:\.[0-9]+)?):(.+)", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """One question as it was typed."""

    images: Sequence[str]  # with weights, like 2:a.jpg, where there are several
    options: QuestionOptions
    is_board: bool = False  # whether the options make this more than one whole image
    texts: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The question in messages and in the output."""
        return " ".join([*self.images, *(TEXT + text for text in self.texts)])

    def find(self, engine: "Engine") -> "QueryInput":
        """Return the question that an engine takes.

        Raises:
            UsageError: an image is not found, or numbers make no sense.
        """
        from retrieval.search.queries.query import Query

        if not self.is_board:
            found = [_find(image, engine) for image in self.images]
            return Query(found, texts=self.texts) if self.texts else found[0]

        weights, images = _weighed(self.images)
        minus_weights, minus = _weighed(images_away(self.options))
        return Query(
            [_find(image, engine) for image in images],
            weights,
            [_find(image, engine) for image in minus],
            minus_weights,
            self.options.combine or "mean",
            _regions(self.options, len(images)),
            self.texts,
        )


def split_texts(queries: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the images among ``queries``, and the texts without their prefix; a file of that very name is no text."""
    texts = [text for text in queries if is_text(text)]
    return [text for text in queries if text not in texts], [text.removeprefix(TEXT) for text in texts]


def is_text(query: str) -> bool:
    """Return whether a query is a text."""
    return query.startswith(TEXT) and not Path(query).exists()


def questions_of(queries: Sequence[str], options: QuestionOptions, texts: Sequence[str] = ()) -> list[Question]:
    """Return the questions that ``queries`` ask: one each, or one of all if they are combined.

    Each of them is narrowed by ``texts``. A query that is a text asks on its own.

    Raises:
        UsageError: stdin more than once, or options that do not fit the number of images.
    """
    away = images_away(options)
    if sum(_split(text)[1] == STDIN for text in (*queries, *away)) > 1:
        raise UsageError(f"{STDIN} (stdin) may be given once")
    if (options.box is not None) + (options.mask is not None) + options.subject > 1:
        raise UsageError("choose one of --box, --mask and --subject")
    if options.has_region and len(queries) > 1:
        raise UsageError(f"--box and --mask are of one image, and {len(queries)} queries were given")
    if away and len(queries) > 1 and options.combine is None:
        raise UsageError("--not needs one question: combine the queries with --combine")
    if options.combine is not None or away or options.has_region:
        images, own = split_texts(queries)
        return [Question(images, options, True, (*texts, *own))]
    weighed = next((text for text in queries if _split(text)[0] is not None), None)
    if weighed is not None:
        raise UsageError(f"no such file: {weighed}; a weight counts among images of one question, see --combine")
    split = [split_texts([query]) for query in queries]
    return [Question(images, options, options.subject, (*texts, *own)) for images, own in split]


def images_away(options: QuestionOptions) -> list[str]:
    """Return the values of --not that are images."""
    return [text for text in options.away or [] if not _is_mode(text)]


def mode_weights(options: QuestionOptions) -> dict[str, float]:
    """Return the weights of the modes that --not and --same name.

    Raises:
        UsageError: a mode is named twice.
    """
    named = [_split(text) for text in options.away or [] if _is_mode(text)]
    weights = [(mode, (1.0 if weight is None else weight) * UNLIKE_WEIGHT) for weight, mode in named]
    weights += [] if options.same is None else [options.same]
    twice = next((mode for mode, _ in weights if sum(mode == other for other, _ in weights) > 1), None)
    if twice is not None:
        raise UsageError(f"the mode {twice} is named twice: once with --not or --same")
    return dict(weights)


def _is_mode(text: str) -> bool:
    """Whether a value of --not names a mode: a file of that name is an image."""
    from retrieval.models.registry import known_modes

    return _split(text)[1] in known_modes() and not Path(_split(text)[1]).exists()


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
