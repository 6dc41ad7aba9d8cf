"""Find the items of an index that a user means by ``id:N``, a path, the end of a path, or a glob."""

import glob
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

from index_store.catalog import Item, composed, uri_of
from index_store.errors import UsageError
from index_store.reader import IndexReader

ID_PREFIX = "id:"
MAX_ID = 2**63 - 1
_WILDCARDS = re.compile(r"[*?[]")


def find_rows(reader: IndexReader, text: str) -> list[int]:
    """Return the rows of the items that ``text`` means; none if nothing fits.

    The first of these that fits counts: ``id:N``, an item's path as stored or relative to the working folder, the end
    of a path after a ``/``, and a glob over whole paths, relative to the working folder unless it is absolute. Names
    fit in any form of Unicode: a Mac decomposes letters, others keep them composed.
    """
    if text.startswith(ID_PREFIX) and text.removeprefix(ID_PREFIX).isdecimal():
        number = int(text.removeprefix(ID_PREFIX))
        return reader.find("id", number) if number <= MAX_ID else []
    name, path = uri_of(text), uri_of(os.path.abspath(text))
    rows = reader.find("uri", name) or reader.find("uri", path) or reader.catalog.find_suffix(name)
    if not rows and _WILDCARDS.search(text):
        pattern = composed(os.path.join(glob.escape(os.getcwd()), name))
        rows = [row for row, uri in enumerate(reader.uris()) if fnmatchcase(composed(uri), pattern)]
    return rows


def find_items(reader: IndexReader, text: str) -> list[Item]:
    """Return the items that ``text`` means; see :func:`find_rows`.

    Raises:
        UsageError: no item fits.
    """
    rows = find_rows(reader, text)
    if not rows:
        raise UsageError(f"{text}: {_no_item(reader, text)}")
    return reader.items(rows)


def locate_image(reader: IndexReader, text: str) -> Path | str:
    """Return the image that ``text`` means: the path of a file, or of the one item that :func:`find_rows` finds.

    Raises:
        UsageError: no item fits, or several; the message lists some.
    """
    if os.path.isdir(text):
        raise UsageError(f"query {text} is a folder; name images, like {Path(text) / '*.jpg'}")
    if os.path.lexists(text) or not _may_look(Path(text)):
        return text
    rows = find_rows(reader, text)
    if not rows:
        raise UsageError(f"query {text}: no such file, and {_no_item(reader, text)}")
    if len(rows) > 1:
        some = ", ".join(f"{ID_PREFIX}{item.id} {item.uri}" for item in reader.items(rows[:3]))
        raise UsageError(f"query {text} fits {len(rows)} items of the index; name one of them: {some} ...")
    return Path(reader.items(rows)[0].uri)


def _may_look(path: Path) -> bool:
    """Say whether this user may know if ``path`` exists; if not, reading it says why."""
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
        first, last = reader.ids.min(), reader.ids.max()
        return f"no item of {root} has that id; its ids are {ID_PREFIX}{first} to {ID_PREFIX}{last}"
    return f"no item of {root} has that name"
