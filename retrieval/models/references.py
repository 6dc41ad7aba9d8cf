"""Names of models in any repository of transformers: ``hf:OWNER/NAME@COMMIT`` and ``hf-aas:OWNER/NAME@COMMIT#LAYER``.

A folder stands for a repository where the place begins with a slash, a dot or a tilde.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from retrieval.errors import UsageError
from retrieval.models.modes import LAST

POOLED, ATTENTION = "hf:", "hf-aas:"
MAIN = "main"  # the branch that a name without a revision means


@dataclass(frozen=True)
class Reference:
    """What a name says. Its text is the name that an index keeps."""

    prefix: str
    repo: str  # OWNER/NAME; of a folder its last name, which has no slash
    revision: str = ""  # a commit, a branch or a tag; empty: the main branch, or whatever a folder holds
    layer: str = LAST  # of attention
    folder: Path | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        layer = f"#{self.layer}" if self.prefix == ATTENTION and self.layer != LAST else ""
        return f"{self.prefix}{self.repo}{revision}{layer}"

    @property
    def place(self) -> str:
        """The name with the folder itself, where there is one; the text alone keeps its last part."""
        layer = f"#{self.layer}" if self.layer != LAST else ""
        return str(self) if self.folder is None else f"{self.prefix}{self.folder}{layer}"

    def pooled(self) -> "Reference":
        """Return the same network as an encoder."""
        return replace(self, prefix=POOLED, layer=LAST)

    def means_same(self, other: "Reference") -> bool:
        """Return whether ``other`` is the same network and layer, at any revision if this one names none."""
        return replace(self, revision=self.revision or other.revision, folder=None) == replace(other, folder=None)


def is_commit(revision: str) -> bool:
    """Return whether a revision is a whole commit, whose files can't change."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def parse_reference(name: str) -> Reference | None:
    """Read a name; None if it begins with neither prefix.

    Raises:
        UsageError: it begins so, and names no repository.
    """
    prefix = next((each for each in (POOLED, ATTENTION) if name.startswith(each)), None)
    if prefix is None:
        return None
    place, layer = name.removeprefix(prefix), LAST
    if prefix == ATTENTION and "#" in place:
        place, _, layer = place.rpartition("#")
    if place.startswith((".", "~")) or Path(place).is_absolute():
        folder = Path(place).expanduser().resolve()
        return Reference(prefix, re.sub(r"[^\w.-]", "-", folder.name), "", layer, folder)
    repo, mark, revision = place.partition("@")
    whole = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo) and (not mark or re.fullmatch(r"[\w./-]+", revision)) and layer
    if not whole:
        raise UsageError(
            f"'{name}' names no repository; write {prefix}OWNER/NAME, {prefix}OWNER/NAME@REVISION or "
            f"{prefix}/path/to/folder"
        )
    return Reference(prefix, repo, revision, layer)


def folder_in(name: str) -> Path | None:
    """Return the folder that a name names, if it does."""
    reference = parse_reference(name)
    return None if reference is None else reference.folder
