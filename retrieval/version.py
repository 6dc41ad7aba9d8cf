"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "diffsim-retrieval"

try:
    VERSION = version(DISTRIBUTION)
except PackageNotFoundError:  # run from a source tree that was never installed
    VERSION = "0+unknown"

CREATED_BY = f"{DISTRIBUTION} {VERSION}"
