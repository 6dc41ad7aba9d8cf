"""Print results on stdout in the form that was asked for, and name things for people."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

from cli.advice import sentence_of, with_advice
from cli.terminal.printing import show, show_json, show_paths
from retrieval.errors import DiffSimError, UsageError
from retrieval.text import counted, human_bytes

if TYPE_CHECKING:
    from retrieval.grouping.cluster_results import Clusters
    from retrieval.grouping.results import Duplicates
    from retrieval.indexing.reports import Estimate
    from retrieval.search.results import Results

    Answer = tuple[Any, Results | DiffSimError]
    """A query, and its results or the error that it met."""

NOTHING: Mapping[int, Mapping[str, Any]] = {}
Form = Literal["table", "json", "jsonl", "paths", "null"]


def choose_form(*, as_json: bool, as_jsonl: bool, paths: bool, null: bool) -> Form:
    """Return the one form that was asked for; -0 may come with --paths.

    Raises:
        UsageError: several forms.
    """
    asked: dict[Form, bool] = {"json": as_json, "jsonl": as_jsonl, "null": null, "paths": paths and not null}
    chosen: list[Form] = [form for form, wanted in asked.items() if wanted]
    if len(chosen) > 1:
        raise UsageError("choose one of --json, --jsonl and --paths")
    return chosen[0] if chosen else "table"


def print_results(
    answers: "Sequence[Answer]", form: Form, is_list: bool = False, explained: Mapping[int, Mapping[str, Any]] = NOTHING
) -> None:
    """Print the results of searches.

    The table shortens paths below the working directory; all other forms print absolute paths.

    Args:
        answers: queries with their results or errors.
        form: the form of the output.
        is_list: whether several queries were asked. JSON is then a list, in which failed queries have an ``error``,
            a JSON line names its query, and each path is printed once.
        explained: explanations by the result's id; JSON then has them as ``explanation``.
    """
    found = [given for _, given in answers if not isinstance(given, DiffSimError)]
    if form == "json":
        each = [_as_json(query, given, is_list, explained) for query, given in answers]
        show_json(each if is_list else each[0])
    elif form == "jsonl":
        for results in found:
            whole = results.to_dict()
            asked = {"query": _asked(results)} if is_list else {}
            for record in _with_explanations(whole["results"], explained):
                show_json({"schema": whole["schema"], **asked, "mode": results.mode, **record}, indent=None)
    elif form in ("paths", "null"):
        paths = dict.fromkeys(result.path for results in found for result in results)
        show_paths(list(paths), b"\0" if form == "null" else b"\n")
    else:
        for number, results in enumerate(found):
            if is_list and number:
                show("")
            if is_list:
                show(short_path(_asked(results) or "stdin"))
            _print_table(results)


def _asked(results: "Results") -> str | None:
    """Return the query of one image or text: its path, or the texts; None for stdin."""
    path: str | None = results.query["path"]
    texts = results.query.get("texts", ())
    return " ".join(f"text:{text}" for text in texts) if path is None and texts else path


def _as_json(
    query: Any, given: "Results | DiffSimError", is_list: bool, explained: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    if isinstance(given, DiffSimError):
        return {"schema": 1, "query": {"path": str(query)}, "error": sentence_of(given), "kind": given.kind}
    # Queries are searched in groups, and each gets an equal share of the group's time.
    shared = {"timing_ms_is": "mean of queries searched together"} if is_list else {}
    whole = given.to_dict()
    results = _with_explanations(whole["results"], explained)
    return {**whole, "notes": note_sentences(given), "results": results, **shared}


def _with_explanations(
    results: Sequence[Mapping[str, Any]], explained: Mapping[int, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    return [
        {**result, **({"explanation": explained[result["id"]]} if result["id"] in explained else {})}
        for result in results
    ]


def note_sentences(results: "Results | Duplicates | Clusters") -> list[str]:
    """Return the notes of a search or a grouping, each with the option or command that helps."""
    return [with_advice(note.message, note.advice, note.facts) for note in results.notes]


def _print_table(results: "Results") -> None:
    columns = ["coarse" if results.is_coarse else " score"]
    columns += ["percentile"] if any(result.percentile is not None for result in results) else []
    columns += [f"{found.mode} percentile" for found in results[0].other_modes] if len(results) else []
    ordered = any(result.order_key is not None for result in results)
    columns += ["ordered by"] if ordered else []
    show("  ".join(["rank", *columns, "path"]))
    for result in results:
        shown = [f"{result.shown_score:6.4f}", *(f"{each:.2f}" for each in result.percentiles)]
        shown += ["" if result.order_key is None else f"{result.order_key:.4f}"] if ordered else []
        cells = [f"{cell:>{len(column)}}" for cell, column in zip(shown, columns, strict=True)]
        mark = "  (gone)" if result.is_gone else ""
        show("  ".join([f"{result.rank:4d}", *cells, f"{short_path(result.path)}{mark}"]))


def short_path(path: str) -> str:
    """Return ``path`` relative to the working directory if it lies below it."""
    below = Path(path)
    if below.is_relative_to(Path.cwd()):
        return str(below.relative_to(Path.cwd()))
    return path


def meant_index(index: str | None) -> str | Path:
    """Return the index that a command means; errors as in :func:`index_store.locate.find_index`."""
    from index_store.locate import find_index

    return find_index(index, os.environ, Path.cwd())


def naming(command: str, index: str | Path, always: bool = False) -> str:
    """Return ``command``, with ``--index`` if it would mean another index here, or if ``always``."""
    try:
        meant = None if always else meant_index(None)
    except DiffSimError:
        meant = None
    if meant is not None and os.path.abspath(meant) == os.path.abspath(index):
        return command
    return f"{command} --index {quote(str(index))}"


def sharing_modes(name: str, stored_as: Mapping[str, str]) -> list[str]:
    """Return the modes whose tensors are stored under ``name``; ``stored_as`` has the name by mode."""
    return [name, *(mode for mode, other in stored_as.items() if other == name and mode != name)]


def describe_estimate(estimate: "Estimate") -> str:
    """Return the disk and memory that a build takes, as one line."""
    modes = "".join(
        f"{' + '.join(sharing_modes(name, estimate.shared))} {human_bytes(size)}, "
        for name, size in estimate.bytes_by_mode.items()
    )
    stored = f"as {estimate.codec} {modes}" if modes else ""
    size = f"each image: {stored}vectors and catalogue {human_bytes(estimate.bytes_beside)}"
    parts = [f"{counted(estimate.images, 'image')} ({size})"] if estimate.images else []
    if estimate.to_complete:
        parts.append(f"the missing data of {counted(estimate.to_complete, 'image')}")
    disk, free = human_bytes(estimate.disk_bytes), human_bytes(estimate.free_disk_bytes)
    line = f"disk: {disk} for {' and '.join(parts)}, {free} free"
    if estimate.local_bytes < estimate.disk_bytes:
        line += f" on this machine, which holds {human_bytes(estimate.local_bytes)} at a time"
    if estimate.models_bytes is not None and estimate.batch_bytes:
        memory = human_bytes(estimate.models_bytes + estimate.batch_bytes)
        line += f"; memory: about {memory} in batches of {counted(estimate.batch, 'image')}"
    return line
