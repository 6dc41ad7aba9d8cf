"""What would help after an error or a note of the library, in terms of this command line.

The library names what is wrong and gives an ``advice``: a word and facts. This table turns the word into options.
"""

from collections.abc import Mapping
from typing import Any

from retrieval.errors import DiffSimError

ADVICE: Mapping[str, str] = {
    "choose-model-once": "give --model or --metric, not both",
    "fetch-again": "delete {file} and fetch it again (diffsim-index fetch MODEL), or name a folder with --weights",
    "fewer-images-at-a-time": "choose less than {images} with --batch-size",
    "get-weights": (
        "download about {megabytes} MB once while online, with: diffsim-index fetch {model}, or with: "
        "hf download {repo} --revision {revision} {files}; or name a local folder of them: "
        "--weights FOLDER, or --encoders NAME=FOLDER for an encoder"
    ),
    "install-package": "pip install {package}",
    "install-package-or-give-masks": "pip install {package}, or give masks with --masks FOLDER",
    "keep-features-on-disk": "keep them on disk instead, with --cache FOLDER",
    "name-encoder-folder": (
        "name one with --encoders {encoder}=FOLDER, or build without a coarse stage with --encoders none"
    ),
    "name-originals": "put them there, or name their folder with --originals",
    "name-vgg-folder": "download {url}, and name its folder with --weights",
    "smaller-model": "choose a smaller --image-size, another --model or --device cpu",
    "use-cpu": "use --device cpu, or auto",
    "write-report": "write one with: diffsim-eval bench BENCH DATA --out FILE.json",
}
"""By the library's word for it, a clause for people; facts of the error fill its braces."""


def with_advice(message: str, advice: str, facts: Mapping[str, Any]) -> str:
    """Return ``message`` and, after a semicolon, the clause that ``advice`` stands for."""
    return f"{message}; {ADVICE[advice].format(**facts)}" if advice else message


def sentence_of(error: DiffSimError) -> str:
    """Return the one sentence that tells a user what happened and which option helps."""
    return with_advice(str(error), error.advice, error.facts)
