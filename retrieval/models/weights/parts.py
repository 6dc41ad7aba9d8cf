"""The parts of a repository (networks, tokenizers, schedulers) and the names of the files that each is read from.

Only these exact names count. A repository or a folder may hold any other file beside them, such as
``openvino_model.bin``, another program's float16 copy or a whole checkpoint.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from retrieval.errors import ModelError

FP16 = "fp16"
CONFIG = "config.json"

Find = Callable[[str], Path | None]
"""From a file's name inside a repository to the file; None where it does not exist."""


@dataclass(frozen=True)
class Form:
    """One way to store a network's weights: a file, or an index that names several files (shards)."""

    name: str  # of the file or of the index
    safe: bool  # safetensors; else a pickle, which is read as tensors only
    variant: str | None  # "fp16", or None
    sharded: bool


@dataclass(frozen=True, kw_only=True)
class Part:
    """A folder of a repository and what is read from it.

    A network has ``stems``: the name without ending of its safetensors file and of its pickle.
    """

    folder: str = ""  # empty: the repository's root
    files: tuple[str, ...] = (CONFIG,)  # beside the weights
    optional: tuple[str, ...] = ()  # those among them that a local folder may do without
    either: tuple[str, ...] = ()  # further files, of which the first that exists is read
    stems: tuple[str, str] | None = None  # None: there are no weights, as in a tokenizer
    variant: str | None = None  # the variant that the hub is asked for
    pickled: bool = False  # the hub has pickles only
    index_first: bool = False  # diffusers prefers an index of shards to a single file, transformers the reverse
    shards: bool = True  # whether there may be any
    read: tuple[str, ...] = ()  # prefixes of the tensors that are used; empty: all of them

    def path(self, name: str) -> str:
        """Return the name of the part's file ``name`` inside the repository."""
        return f"{self.folder}/{name}" if self.folder else name

    def forms(self, local: bool) -> list[Form]:
        """Return the forms that its weights may have, the preferred first.

        Safetensors come before pickles. A local folder may hold the other variant; on the hub only one is taken,
        because the files that happen to lie in the cache must not decide about the numbers.
        """
        if self.stems is None:
            return []
        other = None if self.variant else FP16
        return [
            form
            for variant in (self.variant, other)[: 2 if local else 1]
            for safe in ((False,) if self.pickled and not local else (True, False))
            for form in self._pair(safe, variant)
        ]

    def _pair(self, safe: bool, variant: str | None) -> list[Form]:
        assert self.stems is not None
        stem, ending = (self.stems[0], "safetensors") if safe else (self.stems[1], "bin")
        mark = f".{variant}" if variant else ""
        single = Form(f"{stem}{mark}.{ending}", safe, variant, sharded=False)
        index = Form(f"{stem}.{ending}.index{mark}.json", safe, variant, sharded=True)
        if not self.shards:
            return [single]
        return [index, single] if self.index_first else [single, index]

    def wanted(self) -> list[str]:
        """Return the names inside the repository of the preferred files, for messages."""
        names = [self.path(name) for name in self.files]
        names += [" or ".join(map(self.path, self.either))] if self.either else []
        forms = [form for form in self.forms(local=False) if not form.sharded]
        return names + ([" or ".join(self.path(form.name) for form in forms)] if forms else [])


@dataclass(frozen=True)
class FoundPart:
    """A part whose files are all there, in a local folder."""

    part: Part
    root: Path  # of the repository
    files: tuple[Path, ...]  # beside the weights
    form: Form | None = None  # None: there are no weights
    weights: tuple[Path, ...] = ()  # the file, or the index's shards

    @property
    def folder(self) -> Path:
        """The folder to load from."""
        return self.root / self.part.folder if self.part.folder else self.root

    def options(self) -> dict[str, Any]:
        """Return the arguments that make transformers and diffusers load these very files."""
        assert self.form is not None
        return {"use_safetensors": self.form.safe, "variant": self.form.variant}


class Choice(NamedTuple):
    """The files of a part that will be loaded."""

    names: list[str]  # inside the repository; weights come last, behind the index of their shards
    form: Form | None  # of the weights
    missing: list[str]  # names that were looked for in vain


def choose_files(part: Part, find: Find, local: bool) -> Choice:
    """Choose the files of a part that will be loaded.

    Args:
        part: the part to look for.
        find: looks a name up, in a folder, in the cache or on the hub.
        local: whether the files come from a folder that the user named.
    """
    there = [part.path(name) for name in part.files if find(part.path(name)) is not None]
    optional = {part.path(name) for name in part.optional} if local else set[str]()
    missing = [name for name in map(part.path, part.files) if name not in there and name not in optional]
    if part.either:
        first = next((name for name in map(part.path, part.either) if find(name) is not None), None)
        there += [] if first is None else [first]
        missing += [" or ".join(map(part.path, part.either))] if first is None else []
    forms, incomplete = part.forms(local), list[str]()
    for form in forms:
        path = find(part.path(form.name))
        if path is None:
            continue
        names = [part.path(shard) for shard in read_index(path)] if form.sharded else [part.path(form.name)]
        if absent := [name for name in names if find(name) is None]:
            incomplete = incomplete or absent
            continue
        index = [part.path(form.name)] if form.sharded else []
        return Choice(there + index + names, form, missing)
    weights = part.wanted()[-1:] if part.stems else []
    return Choice(there, None, missing + (incomplete or weights))


def read_index(path: Path) -> list[str]:
    """Return the names of the shards that an index lists.

    Raises:
        ModelError: it is no index, or it names a file outside its folder.
    """
    try:
        names = sorted(set(json.loads(path.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is no index of weight files: {type(error).__name__}") from error
    if not names or not all(isinstance(name, str) and name == Path(name).name and name != ".." for name in names):
        raise ModelError(f"{path} names no files, or files outside its folder")
    return names


def assemble(part: Part, root: Path, choice: Choice) -> FoundPart:
    """Return the part with the chosen files below ``root``."""
    form = choice.form
    beside = {part.path(name) for name in (*part.files, *part.either)}
    if form is not None and form.sharded:
        beside.add(part.path(form.name))
    files = tuple(root / name for name in choice.names if name in beside)
    return FoundPart(part, root, files, form, tuple(root / name for name in choice.names if name not in beside))


def networks(parts: Sequence[FoundPart]) -> Iterator[FoundPart]:
    """Return the parts that have weights."""
    return (part for part in parts if part.form is not None)
