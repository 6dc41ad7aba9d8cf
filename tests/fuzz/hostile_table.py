"""Open, search, verify, build and repair mutated indexes, and print what came of each kind of mutation.

``python -m tests.fuzz.hostile_table FOLDER [--mutations 10000] [--minutes N]``, Linux only. A third of the mutations
changes an index of Q, K and V, a third one of layer inputs, a third one whose layer inputs are compressed. The command
ends with 1 after a crash, a hang, an access outside the index, or a wrong score that nothing announces. Each mutation
copies an index: put FOLDER into memory.
"""

import argparse
import logging
import sys
import time
from pathlib import Path

from index_store.vectors import training
from tests.fuzz.sandbox import Tally, run_all
from tests.fuzz.test_hostile_indexes import BASES, make_base, make_outside
from tests.support.stub_models import tiny_model

PART = 100  # mutations between two looks at the clock


def main() -> int:
    """Read the command line, mutate, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first mutation of each index")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this time")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    training.IVF_FROM_ROWS = 4
    tally, end, done = Tally(), time.monotonic() + 60 * asked.minutes, 0
    numbers = range(asked.first, asked.first + -(-asked.mutations // len(BASES)))
    with tiny_model():
        bases = [make_base(asked.folder / name, name) for name in BASES]
        outside = make_outside(asked.folder)
        for start in range(0, len(numbers), PART):
            for base in bases:
                if time.monotonic() < end:
                    part = run_all(base, list(numbers[start : start + PART]), asked.folder / "sandbox", outside)
                    tally.outcomes += part.outcomes
                    tally.failures += part.failures
                    done = sum(tally.outcomes.values())
                    print(f"{done} mutations", *part.failures, sep="\n", file=sys.stderr, flush=True)
    print(tally.table())
    print(f"\n{done} mutations, {len(tally.failures)} failures")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
