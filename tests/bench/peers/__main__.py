"""`python -m tests.bench.peers TABLE [--quick]`: measure this project beside what others would install.

TABLE is coarse, rerank, reads, indexing or tool. Each prints a table and keeps it with all figures as JSON. Peers that
are not installed are left out; `make bench-peers` installs them into an environment of their own.
"""

import argparse
import tempfile
from pathlib import Path

QUICK_ROWS, MOST_ROWS = 24_000, 10**9
RESULTS = Path(__file__).parent / "results"


def _coarse(asked: argparse.Namespace) -> None:
    from tests.bench.peers import coarse

    rows = min(asked.rows or 100_000, QUICK_ROWS if asked.quick else MOST_ROWS)
    coarse.run(rows, asked.real, asked.peers, asked.out, 1 if asked.quick else 3)


def _rerank(asked: argparse.Namespace) -> None:
    from tests.bench.peers import rerank

    rerank.run(asked.quick, asked.out, 2 if asked.quick else 7)


def _reads(asked: argparse.Namespace) -> None:
    from tests.bench.peers import reading

    with tempfile.TemporaryDirectory() as work:
        reading.run(asked.quick, asked.out, Path(work), 2 if asked.quick else 7)


def _indexing(asked: argparse.Namespace) -> None:
    from tests.bench.peers import building

    with tempfile.TemporaryDirectory() as work:
        building.run(asked.quick, asked.out, Path(work), 1 if asked.quick else 3)


def _tool(asked: argparse.Namespace) -> None:
    from tests.bench.peers import whole_tool

    with tempfile.TemporaryDirectory() as work:
        whole_tool.run(asked.quick, asked.out, Path(work))


TABLES = {"coarse": _coarse, "rerank": _rerank, "reads": _reads, "indexing": _indexing, "tool": _tool}


def main() -> None:
    """Read the command line and measure one table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--quick", action="store_true", help="less of everything: to see that it works")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--rows", type=int, help=f"coarse: vectors; 100000, with --quick at most {QUICK_ROWS}")
    parser.add_argument("--real", action="store_true", help="coarse: tokens of drawn pictures, not clustered vectors")
    parser.add_argument("--peers", type=lambda text: text.split(","), default=[], help="coarse: these alone, by comma")
    asked = parser.parse_args()
    TABLES[asked.table](asked)


if __name__ == "__main__":
    main()
