"""JSON of an index's files: parsed within bounds, values of the expected type and range. Failures are ValueErrors."""

import json
from collections.abc import Mapping
from typing import Any

from index_store.checks.names import shown

MOST_ROWS = 1 << 40
MOST_BYTES = 1 << 60
MOST_ID = (1 << 63) - 2
MOST_CRC = (1 << 32) - 1
MOST_TEXT = 1 << 16  # characters of one text, such as a path


def parse_json(data: bytes) -> Any:
    """Parse JSON without NaN and infinities, and without halves of surrogate pairs, which no file could be named by."""
    try:
        value = json.loads(data, parse_constant=_no_constant)
        if b"\\ud" in data.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"it holds {name}")


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """Return ``value`` if it is an object."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is {shown(value)}, not an object")
    return value


def sequence(value: Any, what: str) -> list[Any]:
    """Return ``value`` if it is a list."""
    if not isinstance(value, list):
        raise ValueError(f"{what} is {shown(value)}, not a list")
    return value


def whole_number(value: Any, what: str, least: int, most: int) -> int:
    """Return ``value`` if it is a whole number from ``least`` to ``most``."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{what} is {shown(value)}, not a whole number from {least} to {most}")
    return value


def share(value: Any, what: str) -> float:
    """Return ``value`` if it is a number from 0 to 1."""
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ValueError(f"{what} is {shown(value)}, not a number from 0 to 1")
    return float(value)


def numbers(value: Any, what: str, least: float, most: float, count: int) -> tuple[float, ...]:
    """Return ``value`` if it is a list of at most ``count`` numbers from ``least`` to ``most``."""
    found = sequence(value, what)
    if len(found) > count:
        raise ValueError(f"{what} has {len(found)} numbers, more than {count}")
    for each in found:
        if type(each) not in (int, float) or not least <= each <= most:
            raise ValueError(f"{what} holds {shown(each)}, not a number from {least:g} to {most:g}")
    return tuple(float(each) for each in found)


def text(value: Any, what: str) -> str:
    """Return ``value`` if it is a text of bounded length without a zero character."""
    if not isinstance(value, str) or len(value) > MOST_TEXT or "\0" in value:
        raise ValueError(f"{what} is {shown(value)}, not a text")
    return value
