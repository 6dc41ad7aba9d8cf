"""The remedy for an error or a note of the library, in the options of this command line.

The library's message says what is wrong. Its ``advice`` is a word, which this table turns into a clause with options.
"""

from collections.abc import Mapping
from shlex import quote
from typing import Any

from retrieval.errors import DiffSimError

ADVICE: Mapping[str, str] = {
    "add-modes": "add them with: diffsim-index build {sources} --modes {modes} --index {index}",
    "add-text-encoder": "add one with: diffsim-index build {sources} --encoders {encoder} --index {index}",
    "build-again": "bring it back with: diffsim-index build",
    "cache-cannot-keep": "the folder may not be writable, the disk may be full, or --max-cache may be too small",
    "choose-codec": "--codec {codec}{where} would fit ({size}); or name another disk (--index)",
    "choose-codec-and-mode": "--codec {codec} --modes {mode}{where} would fit ({size}); or name another disk (--index)",
    "choose-lazy": "--attention lazy{where} would fit ({size}); or name another disk (--index)",
    "choose-mode": "--modes {mode}{where} would fit ({size}); or name another disk (--index)",
    "choose-model-once": "give --model or --metric, not both",
    "fetch-again": "delete {file} and fetch it again (diffsim-index fetch MODEL), or name a folder with --weights",
    "fewer-images-at-a-time": "choose fewer than {images} with --batch-size",
    "fill-beforehand": "compute those of all images beforehand with: diffsim-index fill",
    "fill-for-percentiles": "make them with: diffsim-index fill",
    "get-weights": (
        "download {size} once while online, with: diffsim-index fetch {model}, or with: "
        "hf download {repo} --revision {revision} {files}; or name a local folder of them: "
        "--weights FOLDER, or --encoders NAME=FOLDER for an encoder"
    ),
    "give-token": "put one into a file and name it with --token-file, or into $DIFFSIM_TOKEN",
    "install-package": "pip install {package}",
    "install-package-or-give-masks": "pip install {package}, or give masks with --masks FOLDER",
    "keep-features-on-disk": "keep them on disk instead, with --cache FOLDER",
    "keep-settings": "leave them out, or build another index (--index)",
    "less-to-complete": "add or fill fewer modes (--modes), or let searches compute tensors (--attention lazy)",
    "make-index": "make one with: diffsim-index build FOLDER{index_option}",
    "make-or-name-index": "make one with: diffsim-index build FOLDER, or name one with --index",
    "name-another-index": "name another place with --index",
    "name-encoder-folder": "name one with --encoders {encoder}=FOLDER, or build without encoders (--encoders none)",
    "name-index": "name one with --index",
    "name-new-index": "name the index with --index NAME.diffsim",
    "name-originals": "put them there, or name their folder with --originals",
    "name-vgg-folder": "download {url}, and name its folder with --weights",
    "no-coarse-ranking": "leave out --no-rerank",
    "no-codec-fits": "even --codec {codec} needs {size}: index fewer images or modes (--modes), or name another disk",
    "remove-gone": "if all images were deleted, remove them from the index with: --gone",
    "repair": "restore the file from a copy, or take out the damage with: diffsim-index verify --repair{index_option}",
    "search-exhaustively": "--exhaustive finds them; complete them with: diffsim-index fill",
    "smaller-batch": "--batch-size {images} would fit",
    "smaller-batch-or-larger-commit": "choose a smaller --batch-size or a larger --segment-rows",
    "smaller-images": "choose a smaller --image-size or another model",
    "smaller-model": "choose a smaller --image-size, another --model or --device cpu",
    "smaller-search": "end other programs, search with fewer queries at once, or choose --device cpu",
    "update-the-index": "bring it up to date with: diffsim-index build SOURCE, or with --update",
    "use-cpu": "use --device cpu, or auto",
    "write-comparison": "write one with: diffsim-eval compare BENCH DATA --out FILE.json",
    "write-report": "write one with: diffsim-eval bench BENCH DATA --out FILE.json",
}
"""A clause for people by the library's word, in alphabetical order; the facts of the error fill its braces.

``{index_option}`` is ``--index`` with the fact ``index``, quoted for a shell; nothing if there is no such fact.
"""


def with_advice(message: str, advice: str, facts: Mapping[str, Any]) -> str:
    """Return ``message`` and, after a semicolon, the clause for ``advice``, if there is any."""
    if not advice:
        return message
    index_option = f" --index {quote(str(facts['index']))}" if facts.get("index") else ""
    return f"{message}; {ADVICE[advice].format(**facts, index_option=index_option)}"


def sentence_of(error: DiffSimError) -> str:
    """Return one sentence for the user: what happened, and which option helps."""
    return with_advice(str(error), error.advice, error.facts)
