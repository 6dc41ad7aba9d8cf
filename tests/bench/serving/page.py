"""`python -m tests.bench.serving.page [FOLDER]`: the page of an index of 100,000 pictures in a real browser.

Debian's chromium opens the page, its map and a search, each in a fresh profile, and says when it was ready: the server
is asked for the first time, then again. The index is that of :mod:`tests.bench.serving`, larger. Prints one table.
"""

import argparse
import base64
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.bench.serving.__main__ import OPTIONS, index_in, kept
from tests.bench.serving.started import asked, serving

ITEMS, ROUNDS = 100_000, 5
CHROMIUM = "/usr/bin/chromium"
# A page is interactive once its own scripts have drawn pictures that can be followed, and no task has held it since.
READY = {
    "/": "document.documentElement.classList.contains('scripted') && document.querySelector('.card .name')",
    "/map": "document.querySelector('#status').textContent.includes('lie near each other')",
}


def ready_ms(browser: Any, address: str, condition: str) -> tuple[float, float]:
    """Return the milliseconds until a page is interactive: since it was asked for, and since its load event."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(address, wait_until="commit")
    page.wait_for_function(f"() => {condition}", polling="raf")
    whole, load = page.evaluate("() => [performance.now(), performance.getEntriesByType('navigation')[0].loadEventEnd]")
    context.close()
    return float(whole), max(0.0, float(whole) - float(load or whole))


def search_ms(url: str, picture: Path) -> float:
    """Return the milliseconds of one search over HTTP."""
    begun = time.perf_counter()
    found = asked(f"{url}/v1/search", {"images": [{"base64": _base64(picture)}], **OPTIONS})
    assert len(found["results"]) == OPTIONS["k"]
    return 1e3 * (time.perf_counter() - begun)


def _base64(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode()


def row(what: str, measure: Callable[[int], float]) -> str:
    """Return a row of the table: the first measurement, and the median of the others."""
    first, *others = (measure(number) for number in range(ROUNDS))
    return f"| {what} | {first:.0f} | {statistics.median(others):.0f} |"


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="keeps the index")
    parser.add_argument("--items", type=int, default=ITEMS)
    given = parser.parse_args()
    with kept(given.folder) as folder, sync_playwright() as running:
        index = index_in(folder, given.items)
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        pictures = sorted((folder / "new").iterdir())
        rows = []
        with serving(index) as url:
            rows.append(row("a search with a new picture", lambda number: search_ms(url, pictures[number])))
            for path, condition in READY.items():
                times = [ready_ms(browser, url + path, condition) for _ in range(ROUNDS)]
                for what, place in (("interactive", 0), ("interactive after its load event", 1)):
                    rows.append(row(f"`{path}` {what}", lambda number, p=place, t=times: t[number][p]))
            rows.append(
                row(
                    "the results of a picture that is clicked",
                    lambda number: ready_ms(
                        browser, f"{url}/?image=id:{7 + number}", "document.querySelector('.score')"
                    )[0],
                )
            )
        browser.close()
    print(
        "\n".join(
            [f"| {given.items} pictures, ms | first | median of the next {ROUNDS - 1} |", "|---|---:|---:|", *rows]
        )
    )


if __name__ == "__main__":
    main()
