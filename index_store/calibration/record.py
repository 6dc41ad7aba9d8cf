"""The exact scores of random pairs of an index's images, one small file a mode in ``derived/``.

Nothing depends on the file: without it results have no percentiles, and the next build or fill makes it again.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import google_crc32c

from index_store.checks.json_values import MOST_CRC, MOST_ID, MOST_ROWS, mapping, numbers, parse_json, whole_number
from index_store.checks.names import component, digest
from index_store.errors import IndexCorruptError
from index_store.files import atomic_write, open_regular
from index_store.layout import Layout

LOG = logging.getLogger(__name__)

VERSION = 1  # of how pairs are drawn; a file of another version is made again
MOST_PAIRS = 1 << 16
MOST_SLOPE = 10.0
MOST_RECORD = 1 << 21  # bytes


@dataclass(frozen=True)
class ScoreSample:
    """The content of ``derived/<mode>.scores``: scores of random pairs of different images, of one mode."""

    mode: str
    digest: str  # 16 hex digits of everything that the scores depend on beside the images
    generation: int  # the number of the generation whose images were drawn
    items: int  # images that pairs were drawn from
    next_id: int  # above the ids of all these images
    scores: tuple[float, ...]  # ascending, in [-1, 1]
    slope: float | None = None  # of scores over cosines of coarse vectors; None: the index has no vectors of the mode
    version: int = VERSION


def write_sample(layout: Layout, sample: ScoreSample) -> None:
    """Write the file of a mode, replacing an older one at once. The caller holds the writer's lock.

    Raises:
        NoSpaceError, IndexStoreError: the disk is full, or the folder can't be written.
    """
    path, values = layout.score_sample(sample.mode), asdict(sample)
    content = {"crc32c": google_crc32c.value(_canonical(values)), "sample": values}
    atomic_write(path, json.dumps(content).encode())


def read_sample(layout: Layout, mode: str, expected: str) -> ScoreSample | None:
    """Read the file of a mode; None if it is missing, damaged, or of another version or digest than ``expected``."""
    path = layout.score_sample(mode)
    try:
        with open_regular(path) as file:
            sample = sample_of(mode, file.read(MOST_RECORD + 1))
    except FileNotFoundError:
        return None
    except (OSError, IndexCorruptError, ValueError, KeyError, TypeError) as error:
        LOG.warning("%s can't be used, so results have no percentiles until the next build: %s", path, error)
        return None
    return sample if (sample.digest, sample.version) == (expected, VERSION) else None


def sample_of(mode: str, data: bytes) -> ScoreSample:
    """Return the sample in the bytes of ``derived/<mode>.scores``; ValueError, KeyError or TypeError if it is none."""
    if len(data) > MOST_RECORD:
        raise ValueError(f"it has more than {MOST_RECORD} bytes")
    content = mapping(parse_json(data), "the file")
    values = mapping(content["sample"], "sample")
    whole_number(content["crc32c"], "a checksum", 0, MOST_CRC)
    if component(values["mode"], "a mode") != mode:
        raise ValueError(f"it is of the mode {values['mode']}")
    digest(values["digest"])
    for name, least, most in (
        ("generation", 0, MOST_ROWS),
        ("items", 2, MOST_ROWS),
        ("next_id", 0, MOST_ID + 1),
        ("version", 1, MOST_ROWS),
    ):
        whole_number(values[name], name, least, most)
    scores = numbers(values["scores"], "scores", -1.0, 1.0, MOST_PAIRS)
    if not scores or any(high < low for low, high in pairwise(scores)):
        raise ValueError("its scores are not ascending")
    if values["slope"] is not None:
        numbers([values["slope"]], "slope", 0.0, MOST_SLOPE, 1)
    if google_crc32c.value(_canonical(values)) != content["crc32c"]:
        raise ValueError("its checksum differs")
    return ScoreSample(**{**values, "scores": scores})


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
