"""`python -m tests.bench.serving [FOLDER]`: a server of 10,000 pictures under load, with locust as the clients.

The index is drawn pictures with the embedded model, enlarged by copies with shuffled tokens, see
:mod:`tests.bench.enlarged`; FOLDER keeps it for further runs. Queries are pictures that are not in the index, sent as
files. The server is `diffsim-serve` in a process of its own. Prints one table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval import Client
from tests.bench import enlarged
from tests.bench.serving.started import serving

ITEMS, SECONDS = 10_000, 20
OPTIONS: dict[str, Any] = {"k": 10, "candidates": 200}
LOADS = (1, 8, 64)  # clients
OVERLOAD = 192  # clients that ask with a deadline, three for each place in the queue
DEADLINE_MS = 1_000
SLACK_MS = 500  # for an answer on its way, on a busy machine
LOCUSTFILE = Path(__file__).with_name("locustfile.py")


@dataclass(frozen=True)
class Load:
    """What the requests of some clients met."""

    clients: int
    seconds: float
    statuses: Counter[int]
    answered_ms: list[float]  # of answers with results, ascending
    longest_ms: float  # of all
    wrong: int  # answers that are not those of a serial search

    @property
    def per_second(self) -> float:
        return len(self.answered_ms) / self.seconds

    def quantile(self, share: float) -> float:
        return self.answered_ms[min(len(self.answered_ms) - 1, int(share * len(self.answered_ms)))]


def loaded(url: str, clients: int, seconds: int, plan: dict[str, Any], folder: Path) -> Load:
    """Run so many clients in a process of their own."""
    out, file = folder / "answered.json", folder / "plan.json"
    file.write_text(json.dumps({**plan, "out": str(out)}), "utf-8")
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary", "-f", str(LOCUSTFILE), "-H", url]
    command += ["-u", str(clients), "-r", str(clients), "-t", f"{seconds}s", "--loglevel", "ERROR"]
    environment = {**os.environ, "LOAD_PLAN": str(file), "NO_PROXY": "127.0.0.1"}
    subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    answered = json.loads(out.read_text("utf-8"))
    times = sorted(ms for status, ms, _ in answered if status == 200)
    statuses = Counter(status for status, _, _ in answered)
    longest, wrong = max(ms for _, ms, _ in answered), sum(not right for _, _, right in answered)
    return Load(clients, seconds, statuses, times or [0.0], longest, wrong)


def expected_of(url: str, pictures: Sequence[Path]) -> list[list[dict[str, Any]]]:
    """Return each picture's neighbours, asked for one at a time."""
    client = Client(url)
    return [[{"id": each.id, "score": each.score} for each in client.search(path, **OPTIONS)] for path in pictures]


@contextmanager
def kept(folder: Path | None) -> Iterator[Path]:
    """Yield the folder that was asked for, or one that is removed afterwards."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def index_in(folder: Path, items: int) -> Path:
    """Return the index in a folder, made now if it is not there."""
    index = folder / "photos.diffsim"
    return index if index.exists() else enlarged.write(folder, items, "mini")


def table(loads: Sequence[Load], late: Load) -> str:
    """Return the figures as a table."""
    lines = [
        "| clients | answers/s | p50 ms | p95 ms | p99 ms | 429 | other errors | wrong |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for load in loads:
        times = " | ".join(f"{load.quantile(share):.0f}" for share in (0.5, 0.95, 0.99))
        others = sum(number for status, number in load.statuses.items() if status not in (200, 429))
        busy = load.statuses[429]
        lines.append(f"| {load.clients} | {load.per_second:.1f} | {times} | {busy} | {others} | {load.wrong} |")
    one = loads[0].per_second
    gain = ", ".join(f"{load.per_second / one:.2f} x by {load.clients} clients" for load in loads[1:]) if one else ""
    met = ", ".join(f"{number} x {status}" for status, number in sorted(late.statuses.items()))
    lines.append(f"\nAnswers a second against one client: {gain}.")
    lines.append(
        f"{late.clients} clients with a deadline of {DEADLINE_MS} ms: {met}; {late.per_second:.1f} answers/s, p50 "
        f"{statistics.median(late.answered_ms):.0f} ms, p99 {late.quantile(0.99):.0f} ms, the longest wait "
        f"{late.longest_ms:.0f} ms."
    )
    return "\n".join(lines)


def faults(loads: Sequence[Load], late: Load) -> list[str]:
    """Return what must not have happened."""
    found = [f"{load.clients} clients: {load.wrong} answers are wrong" for load in (*loads, late) if load.wrong]
    met = [*((load, set(load.statuses) - {200, 429}) for load in loads), (late, set(late.statuses) - {200, 429, 504})]
    found += [f"{load.clients} clients: answers with the statuses {sorted(other)}" for load, other in met if other]
    if late.longest_ms > DEADLINE_MS + SLACK_MS:
        found.append(f"{late.clients} clients: an answer after {late.longest_ms:.0f} ms")
    return found


def main() -> None:
    """Read the command line, measure, print; exit with 1 if an answer was wrong, failed or late."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="keeps the index")
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each load")
    asked = parser.parse_args()
    with kept(asked.folder) as folder, serving(index_in(folder, asked.items)) as url:
        pictures = sorted((folder / "new").iterdir())
        expected = expected_of(url, pictures)
        plan: dict[str, Any] = {"options": OPTIONS, "pictures": list(map(str, pictures)), "expected": expected}
        loads = [loaded(url, clients, asked.seconds, plan, folder) for clients in LOADS]
        late_plan = {**plan, "options": {**OPTIONS, "deadline_ms": DEADLINE_MS}}
        late = loaded(url, OVERLOAD, asked.seconds, late_plan, folder)
    print(table(loads, late))
    if found := faults(loads, late):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
