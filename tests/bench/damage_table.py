"""Damage every kind of file of an index in every way, repair it, and print what was lost.

``python -m tests.bench.damage_table FOLDER``, Linux only: a file that can't be read is a link to ``/proc/self/mem``.
Every count but the cases and the images kept must be 0; the command ends with 1 otherwise.
"""

import argparse
import logging
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tests.indexing.upkeep.damage_matrix import DAMAGES, STATES, Start, examine, prepare, small_parts, victims

HARM = ("images_lost", "parts_lost", "wrong", "damage_left", "other_answers")


def main() -> int:
    """Read the command line, examine every case, print one row a state and kind of damage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--state", choices=list(STATES), action="append", help="only this state (repeatable)")
    asked = parser.parse_args()
    logging.getLogger("retrieval").setLevel(logging.ERROR)  # each repair is a warning
    logging.getLogger("index_store").setLevel(logging.ERROR)
    asked.folder.mkdir(parents=True)
    print("| state | damage | files | images kept | " + " | ".join(name.replace("_", " ") for name in HARM) + " |")
    print("|---" * (4 + len(HARM)) + "|")
    harm = 0
    with small_parts():
        for state in asked.state or STATES:
            start = prepare(state, asked.folder / state.replace(" ", "-"))
            for damage in DAMAGES:
                total = examine_all(start, damage, asked.folder / "scratch.diffsim")
                harm += sum(total[name] for name in HARM)
                kept = f"{total['kept']} of {len(start.paths) * total['files']}"
                counts = " | ".join(str(total[name]) for name in HARM)
                print(f"| {state} | {damage} | {total['files']} | {kept} | {counts} |", flush=True)
    return int(harm > 0)


def examine_all(start: Start, damage: str, scratch: Path) -> Counter[str]:
    """Damage one file of each kind and add up the outcomes; name those that did harm on stderr."""
    total: Counter[str] = Counter()
    for kind, victim in victims(start.index).items():
        outcome = asdict(examine(start, victim, damage, scratch))
        if any(outcome[name] for name in HARM):
            print(f"{kind} {damage}: {outcome}", file=sys.stderr)
        total.update(outcome)
        total["files"] += 1
    return total


if __name__ == "__main__":
    sys.exit(main())
