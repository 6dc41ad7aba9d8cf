"""The members of a tar, by their offsets: one pass over the headers, then each image is one read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from retrieval.errors import ImageError
from retrieval.images.shards.naming import path_of_member
from retrieval.images.shards.places import FileState, open_shard_file

BLOCK = 512
_SCANNED = 2**20  # bytes read at a time while the next header is looked for
_MOST_NAME = 2**20  # bytes of a long name or of a member's attributes
_MAGIC = (b"ustar\0", b"ustar ")
_REGULAR, _FOLDER, _DETAILS = (b"0", b"\0", b"7"), b"5", (b"L", b"K", b"x", b"X", b"g")
_KINDS = {b"1": "is a link", b"2": "is a link", b"S": "is a sparse file"}
_SHOWN = 3  # problems of one shard that are told


class Span(NamedTuple):
    """The bytes of a member."""

    start: int
    size: int


@dataclass(frozen=True)
class _TarHeader:
    name: str
    size: int
    kind: bytes


class TarShard:
    """A tar whose headers were read. Links, and names that lead out of it, are refused by name."""

    is_whole, has_images = True, True
    holds_images = True
    names_files = False

    def __init__(self, path: str, state: FileState) -> None:
        """Read every header of a file in the given state.

        Raises:
            OSError: the file can't be read.
        """
        self.path, self.state = path, state
        self._spans: dict[str, Span] = {}
        self._problems: list[str] = []
        with open_shard_file(path, state) as file:
            self._scan(file)

    @property
    def problem(self) -> str:
        """A clause about damage and refused members; empty for a whole tar."""
        more = len(self._problems) - _SHOWN
        return "; ".join([*self._problems[:_SHOWN], *([f"and {more} more problems"] if more > 0 else [])])

    def names(self) -> Iterator[str]:
        """Yield the names of all regular members."""
        return iter(self._spans)

    def size_of(self, name: str) -> int:
        """Return the bytes of a member; ImageError (vanished) if there is none of the name."""
        return self._span(name).size

    def file_of(self, name: str) -> Path | None:
        """Return None: a member's bytes lie in the tar."""
        return None

    def read(self, name: str, before: Callable[[int], None] | None, most: int) -> bytes:
        """Return the bytes of a member; ``before`` is called with their number first.

        Raises:
            ImageError: vanished, too_large (above ``most`` bytes), or truncated.
        """
        start, size = self._span(name)
        if size > most:
            raise ImageError("too_large", path_of_member(self.path, name), f"is a member of {size} bytes")
        if start + size > self.state[0]:
            detail = f"is cut: the tar {self.path} ends before its {size} bytes do"
            raise ImageError("truncated", path_of_member(self.path, name), detail)
        if before is not None:
            before(size)
        with open_shard_file(self.path, self.state) as file:
            return _at(file, start, size)

    def _span(self, name: str) -> Span:
        if name not in self._spans:
            raise ImageError("vanished", path_of_member(self.path, name), f"is not in the tar {self.path} (any more)")
        return self._spans[name]

    def _scan(self, file: BinaryIO) -> None:
        at, last, is_ended = 0, "", False
        long_name, attributes = "", dict[str, str]()
        while at + BLOCK <= self.state[0]:
            block = _at(file, at, BLOCK)
            header = _parsed(block)
            if header is None:
                is_ended = not any(block) and not any(_at(file, at + BLOCK, BLOCK))
                if not is_ended:
                    self._damage(f"is damaged: the header at byte {at}{_after(last)} can't be read")
                found = self._next_header(file, at + BLOCK)  # several tars may lie one behind the other
                if found is None:
                    break
                at, long_name, attributes = found, "", {}
                continue
            is_ended, start = False, at + BLOCK
            size = _number(attributes.get("size"), header.size)
            at = start + -(-size // BLOCK) * BLOCK
            if header.kind in _DETAILS and size > _MOST_NAME:
                self._problems.append(f"has a name of {size} bytes at byte {start}")
            elif header.kind == b"L":
                long_name = _at(file, start, size).rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif header.kind in (b"x", b"X"):
                attributes = _attributes(_at(file, start, size))
            elif header.kind not in _DETAILS:
                last = attributes.get("path") or long_name or header.name
                sparse = any(key.startswith("GNU.sparse") for key in attributes)
                self._take(last, b"S" if sparse else header.kind, Span(start, size))
                long_name, attributes = "", {}
        if not is_ended and self.is_whole:
            self._damage(f"is cut: it has no end, and the last member is '{last}'" if last else "is empty")

    def _damage(self, problem: str) -> None:
        self.is_whole = False
        self._problems.append(problem)

    def _take(self, name: str, kind: bytes, span: Span) -> None:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if kind == _FOLDER or (kind in _REGULAR and name.endswith("/")):  # as the oldest tars mark folders
            return
        if name.startswith("/") or ".." in parts or "\0" in name or not parts:
            self._problems.append(f"holds '{name}', a name that leads out of it")
        elif kind not in _REGULAR:
            self._problems.append(f"holds '{name}', which {_KINDS.get(kind, 'is not a regular file')}")
        else:
            self._spans["/".join(parts)] = span

    def _next_header(self, file: BinaryIO, at: int) -> int | None:
        """Return the offset of the first header from ``at`` on; None if there is none."""
        while at + BLOCK <= self.state[0]:
            data = _at(file, at, _SCANNED)
            for start in range(0, len(data) - BLOCK + 1, BLOCK):
                if data[start + 257 : start + 263] in _MAGIC and _parsed(data[start : start + BLOCK]):
                    return at + start
            at += _SCANNED
        return None


def _at(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def _parsed(block: bytes) -> _TarHeader | None:
    """Return the facts of a header; None if its checksum is wrong."""
    try:
        if int(block[148:156].strip(b"\0 "), 8) != sum(block) - sum(block[148:156]) + 8 * 0x20:
            return None
        size = (
            int.from_bytes(block[125:136], "big") if block[124] & 0x80 else int(block[124:136].strip(b"\0 ") or b"0", 8)
        )
    except ValueError:
        return None
    name, prefix = _text(block[:100]), _text(block[345:500]) if block[257:263] == _MAGIC[0] else ""
    kind = block[156:157]
    return _TarHeader(f"{prefix}/{name}" if prefix else name, 0 if kind in (b"1", b"2", _FOLDER) else size, kind)


def _after(last: str) -> str:
    return f" after '{last}'" if last else ""


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _attributes(data: bytes) -> dict[str, str]:
    """Return the attributes of an extended header: lines like ``LENGTH KEY=VALUE``."""
    found: dict[str, str] = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(data):
            break
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return found


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isdecimal() else otherwise
