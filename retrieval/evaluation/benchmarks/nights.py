"""NIGHTS: 20,019 triplets with people's choices, read from its data.csv by column name."""

from pathlib import Path

from retrieval.errors import UsageError
from retrieval.evaluation.triplets import Triplet, read_csv

COLUMNS = ("ref_path", "left_path", "right_path", "left_vote", "split")


def read_nights(file: Path, split: str, least_votes: int = 0) -> list[Triplet]:
    """Return the triplets of a split; the image that people chose is the nearer one.

    Args:
        file: data.csv; paths in it are relative to its folder.
        split: train, val or test.
        least_votes: leave out rows with fewer votes; DreamSim keeps 6 or more, DiffSim's code all.

    Raises:
        UsageError: a missing column or image, an unreadable vote, or no rows of the split.
    """
    found = []
    for line, row in read_csv(file, COLUMNS):
        if row["split"] != split or (least_votes and _votes(row, file, line) < least_votes):
            continue
        if row["left_vote"] not in {"0", "1", "0.0", "1.0"}:
            raise UsageError(f"{file}, line {line}: left_vote is '{row['left_vote']}', not 0 or 1")
        sides = [file.parent / row["left_path"], file.parent / row["right_path"]]
        near, far = sides if float(row["left_vote"]) else sides[::-1]
        part = {"true": "imagenet", "false": "not imagenet"}.get(row.get("is_imagenet", "").lower(), "")
        found.append(Triplet(file.parent / row["ref_path"], near, far, part, row.get("prompt", "")))
    if not found:
        raise UsageError(f"{file} has no rows of the split '{split}'")
    missing = [path for t in found for path in (t.reference, t.nearer, t.farther) if not path.is_file()]
    if missing:
        raise UsageError(f"NIGHTS: {file.name} names {missing[0]}, which does not exist")
    return found


def _votes(row: dict[str, str], file: Path, line: int) -> float:
    try:
        return float(row["votes"])
    except (KeyError, ValueError) as error:
        raise UsageError(f"{file}, line {line}: votes is '{row.get('votes', '')}', not a number") from error
