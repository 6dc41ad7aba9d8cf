"""Notes on a search: what a user should know beside the results."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from retrieval.search.results import Note, Result
from retrieval.search.tensors.candidate_tensors import CandidateScores


def search_notes(root: Path, mode: str, scored: CandidateScores | None, without_vector: int) -> list[Note]:
    """Return what a user should know about how the candidates of the index at ``root`` were found and scored."""
    notes = [] if scored is None else _about_tensors(root, mode, scored)
    if without_vector:
        message = f"{without_vector} images have no vector to be found by, so a search may miss them"
        notes.append(Note("without_vector", message, advice="search-exhaustively", facts={"images": without_vector}))
    return notes


def note_on_gone(results: Sequence[Result]) -> list[Note]:
    """Return the note on results whose file is gone, if there are any."""
    gone = sum(result.is_gone for result in results)
    if not gone:
        return []
    message = f"the files of {gone} of {len(results)} results are gone: they were moved or deleted after the last build"
    return [Note("gone", message, advice="update-the-index", facts={"results": gone})]


def _about_tensors(root: Path, mode: str, scored: CandidateScores) -> list[Note]:
    notes = []
    if scored.computed:
        message = f"the {mode} tensors of {scored.computed} candidates were not in the index and have been computed"
        notes.append(Note("computed", message, advice="fill-beforehand"))
    if scored.unkept:
        kept_in = root / "cache"
        message = f"{scored.unkept} of them could not be kept in {kept_in}, so the next search computes them again"
        notes.append(Note("unkept", message, advice="cache-cannot-keep"))
    if scored.left_out:
        message = (
            f"{scored.left_out} candidates are left out: their {mode} tensors are not in the index, and their files "
            "can't be read or have changed since"
        )
        notes.append(Note("left_out", message, advice="update-the-index"))
    return [replace(note, facts={"candidates": getattr(scored, note.kind)}) for note in notes]
