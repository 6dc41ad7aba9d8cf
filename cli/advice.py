"""What would help after an error or a note of the library, in terms of this command line.

The library names what is wrong and gives an ``advice``: a word and facts. This table turns the word into options.
"""

from collections.abc import Mapping
from typing import Any

from retrieval.errors import DiffSimError

ADVICE: Mapping[str, str] = {
    "add-modes": "add them with: diffsim-index build {sources} --modes {modes} --index {index}",
    "cache-cannot-keep": "the folder may not be writable, the disk may be full, or --max-cache may be too small",
    "choose-codec": "--codec {codec}{where} would fit ({size}); or name another disk (--index)",
    "choose-codec-and-mode": "--codec {codec} --modes {mode}{where} would fit ({size}); or name another disk (--index)",
    "choose-lazy": "--attention lazy{where} would fit ({size}); or name another disk (--index)",
    "choose-mode": "--modes {mode}{where} would fit ({size}); or name another disk (--index)",
    "fill-beforehand": "compute those of all images beforehand with: diffsim-index fill",
    "keep-settings": "leave them out, or build another index (--index)",
    "less-to-complete": "add or fill fewer modes (--modes), or let searches compute tensors (--attention lazy)",
    "name-another-index": "name another place with --index",
    "no-coarse-ranking": "leave out --no-rerank",
    "no-codec-fits": "even --codec {codec} needs {size}: index fewer images or modes (--modes), or name another disk",
    "search-exhaustively": "--exhaustive finds them; complete them with: diffsim-index fill",
    "smaller-batch": "--batch-size {images} would fit",
    "smaller-images": "choose a smaller --image-size or another model",
    "update-the-index": "bring it up to date with: diffsim-index build SOURCE",
}
"""By the library's word for it, a clause for people; facts of the error fill its braces."""


def with_advice(message: str, advice: str, facts: Mapping[str, Any]) -> str:
    """Return ``message`` and, after a semicolon, the clause that ``advice`` stands for."""
    return f"{message}; {ADVICE[advice].format(**facts)}" if advice else message


def sentence_of(error: DiffSimError) -> str:
    """Return the one sentence that tells a user what happened and which option helps."""
    return with_advice(str(error), error.advice, error.facts)
