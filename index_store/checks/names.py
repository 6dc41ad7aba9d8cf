"""Names from JSON that become parts of a path. An index may come from anyone, so no name may lead out of its folder."""

import re
from typing import Any

from index_store.checks.links import FILES, FOLDERS
from index_store.layout import file_name

# Neither separators nor control characters, not "." or "..", and none of the characters that a glob gives a meaning.
# The file of an encoder from a repository has a name of up to 150 characters.
_COMPONENT = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.+@=-]{0,199}")
_REPOSITORY = re.compile(r"[a-z]+:[0-9A-Za-z_][\w.@=-]*(/[0-9A-Za-z_][\w.@=-]*)?", re.ASCII)  # of an encoder
_GENERATION = re.compile(r"[0-9]{6,18}\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{16}")
_FOLDERS = re.compile(r"(spare/|vectors/)?")


def component(value: Any, kind: str) -> str:
    """Return ``value`` if it can be one folder's or file's name; ValueError, which calls it a ``kind``, if not."""
    if not isinstance(value, str) or not _COMPONENT.fullmatch(value) or value in (*FOLDERS, *FILES):
        raise ValueError(f"{shown(value)} can't be the name of {kind}")
    return value


def encoder(value: Any) -> str:
    """Return an encoder's name, or a repository's such as ``hf:owner/name``, if a file can be called so."""
    if isinstance(value, str) and _REPOSITORY.fullmatch(value) and _COMPONENT.fullmatch(file_name(value)):
        return value
    return component(value, "an encoder")


def segment_file(value: Any) -> str:
    """Return the path of a segment's file: one name, or one below ``vectors/`` or ``spare/``; else ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} can't be the name of a file")
    folder = _FOLDERS.match(value)
    assert folder is not None  # an empty match at least
    return folder[0] + component(value[folder.end() :], "a file")


def generation_name(value: str) -> str:
    """Return the name of a generation's file, such as ``000012.json``; else ValueError."""
    if not _GENERATION.fullmatch(value):
        raise ValueError(f"it does not name a generation: {shown(value)}")
    return value


def sha256(value: Any) -> str:
    """Return a SHA-256 in lower-case hex digits; ValueError if ``value`` is none."""
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError(f"{shown(value)} can't be a SHA-256")
    return value


def digest(value: Any) -> str:
    """Return 16 lower-case hex digits; ValueError if ``value`` is something else."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError(f"{shown(value)} can't be a digest")
    return value


def shown(value: Any) -> str:
    """Return at most 40 characters of a value from a file, without control characters, for a message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
