"""Clients of a server, for `locust`: each sends a picture, waits for its neighbours, and sends the next one.

LOAD_PLAN names a JSON file: the options, the files of the pictures, the neighbours that each must have, and the file
that every request's status, milliseconds and verdict are written to.
"""

import json
import os
import time
from itertools import count
from pathlib import Path
from typing import Any

from locust import FastHttpUser, events, task

PLAN = json.loads(Path(os.environ["LOAD_PLAN"]).read_text("utf-8"))
PICTURES = [Path(path).read_bytes() for path in PLAN["pictures"]]
TOLERANCE = 1e-5  # between scores of questions that are answered together and alone
ANSWERED: list[tuple[int, float, bool]] = []  # status, milliseconds, whether the answer is that of a serial search
numbers = count()


def is_right(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """Say whether two rankings have the same scores, and the same images but for equal ones in another order."""
    if len(found) != len(expected):
        return False
    near = all(abs(a["score"] - b["score"]) <= TOLERANCE for a, b in zip(found, expected, strict=True))
    last = min(each["score"] for each in expected) + TOLERANCE
    sure = ({each["id"] for each in some if each["score"] > last} for some in (found, expected))
    return near and len(set(map(frozenset, sure))) == 1


class Searcher(FastHttpUser):
    """One client."""

    @task
    def search(self) -> None:
        """Send a picture; where the server is busy, come back when it says."""
        number = next(numbers) % len(PICTURES)
        begun = time.perf_counter()
        files, fields = {"image": ("image", PICTURES[number])}, {"options": json.dumps(PLAN["options"])}
        with self.client.post("/v1/search/upload", data=fields, files=files, catch_response=True) as answer:
            ms = 1e3 * (time.perf_counter() - begun)
            status = answer.status_code
            right = status != 200 or is_right(answer.json()["results"], PLAN["expected"][number])
            ANSWERED.append((status, ms, right))
            if status in (429, 504) or (status == 200 and right):
                answer.success()
        if status == 429:
            time.sleep(float(answer.headers.get("Retry-After") or 1))


@events.test_stop.add_listener
def write(**_: Any) -> None:
    """Write what every request met."""
    Path(PLAN["out"]).write_text(json.dumps(ANSWERED), "utf-8")
