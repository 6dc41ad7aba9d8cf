"""Which image a user's words mean: a file, or an item of an index."""

import os
from fnmatch import fnmatchcase
from pathlib import Path

from index_store.catalog import Item
from index_store.errors import UsageError
from index_store.reader import IndexReader

ID_PREFIX = "id:"


def locate_image(reader: IndexReader, text: str) -> Path | str:
    """Return the image that ``text`` means: a file's path, ``id:N``, or the end of one indexed item's path.

    Raises:
        UsageError: nothing, or several items; the message lists some.
    """
    if os.path.isdir(text):
        raise UsageError(f"query {text} is a folder; name images, like {Path(text) / '*.jpg'}")
    if os.path.lexists(text) or not _can_be_told(Path(text)):
        return text
    if text.startswith(ID_PREFIX):
        number = text.removeprefix(ID_PREFIX)
        rows = reader.find("id", int(number)) if number.isdecimal() else []
    else:
        rows = reader.find("uri", text) or reader.find_suffix(text)
    if not rows:
        raise UsageError(f"query {text}: no such file, and {_no_item(reader, text)}")
    if len(rows) > 1:
        some = ", ".join(f"{ID_PREFIX}{item.id} {item.uri}" for item in reader.items(rows[:3]))
        raise UsageError(f"query {text} fits {len(rows)} items of the index; name one of them: {some} ...")
    return Path(reader.items(rows)[0].uri)


def _can_be_told(path: Path) -> bool:
    """Say whether this user may know if there is a file: where not, reading it says why."""
    try:
        path.exists()
    except PermissionError:
        return False
    except ValueError:  # a zero byte in the name
        return True
    return True


def _no_item(reader: IndexReader, text: str) -> str:
    root = reader.layout.root
    if text.startswith(ID_PREFIX) and len(reader):
        return (
            f"no item of {root} has that id; its ids are {ID_PREFIX}{reader.ids.min()} to {ID_PREFIX}{reader.ids.max()}"
        )
    return f"no item of {root} has that name"


def _matching(reader: IndexReader, pattern: str) -> list[Item]:
    if pattern.startswith("id:") and pattern[3:].isdecimal():
        rows = reader.find("id", int(pattern[3:]))
    elif any(character in pattern for character in "*?["):
        absolute = str(Path(pattern).absolute())
        rows = [row for row, uri in enumerate(reader.uris()) if fnmatchcase(uri, absolute)]
    else:
        rows = reader.find("uri", str(Path(pattern).absolute())) or reader.find_suffix(pattern)
    return _some(reader.items(rows), pattern, reader)


def _some(items: list[Item], pattern: str, reader: IndexReader) -> list[Item]:
    if not items:
        raise UsageError(f"{pattern} fits no item of {reader.layout.root}; nothing was removed")
    return items
