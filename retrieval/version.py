"""The version, from the installed distribution's metadata."""

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "diffsim-retrieval"

try:
    VERSION = version(DISTRIBUTION)
except PackageNotFoundError:  # run from a tree that was never installed
    VERSION = "0+unknown"

CREATED_BY = f"{DISTRIBUTION} {VERSION}"
