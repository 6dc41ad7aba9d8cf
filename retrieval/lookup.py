"""Which image a user's words mean: a file, or an item of an index."""

from pathlib import Path

from index_store.reader import IndexReader
from retrieval.errors import UsageError

ID_PREFIX = "id:"


def locate_image(reader: IndexReader, text: str) -> Path | str:
    """Return the image that ``text`` means: a file's path, ``id:N``, or the end of one indexed item's path.

    Raises:
        UsageError: nothing, or several items; the message lists some.
    """
    if Path(text).exists():
        return text
    if text.startswith(ID_PREFIX):
        number = text.removeprefix(ID_PREFIX)
        rows = reader.find("id", int(number)) if number.isdecimal() else []
    else:
        rows = reader.find("uri", text) or reader.find_suffix(text)
    if not rows:
        raise UsageError(f"query {text}: no such file, and no item of {reader.layout.root} has that name")
    if len(rows) > 1:
        some = ", ".join(f"{ID_PREFIX}{item.id} {item.uri}" for item in reader.items(rows[:3]))
        raise UsageError(f"query {text} fits {len(rows)} items of the index; name one of them: {some} ...")
    return Path(reader.items(rows)[0].uri)
