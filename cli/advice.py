"""What would help after an error or a note of the library, in terms of this command line.

The library names what is wrong and gives an ``advice``: a word and facts. This table turns the word into options.
"""

from collections.abc import Mapping
from shlex import quote
from typing import Any

from retrieval.errors import DiffSimError

ADVICE: Mapping[str, str] = {
    "build-again": "bring it back with: diffsim-index build",
    "make-index": "make one with: diffsim-index build FOLDER{index_option}",
    "make-or-name-index": "make one with: diffsim-index build FOLDER, or name one with --index",
    "name-index": "name one with --index",
    "name-new-index": "name the index with --index NAME.diffsim",
    "repair": "restore the file from a copy, or take out the damage with: diffsim-index verify --repair{index_option}",
}
"""By the library's word for it, a clause for people; facts of the error fill its braces.

``{index_option}`` is ``--index`` with the error's fact ``index``, quoted for a shell, or nothing without that fact.
"""


def with_advice(message: str, advice: str, facts: Mapping[str, Any]) -> str:
    """Return ``message`` and, after a semicolon, the clause that ``advice`` stands for."""
    if not advice:
        return message
    index_option = f" --index {quote(str(facts['index']))}" if facts.get("index") else ""
    return f"{message}; {ADVICE[advice].format(**facts, index_option=index_option)}"


def sentence_of(error: DiffSimError) -> str:
    """Return the one sentence that tells a user what happened and which option helps."""
    return with_advice(str(error), error.advice, error.facts)
