"""Debian's chromium, driven by Playwright, in front of a server of the drawn gallery.

Pictures of the page are kept where DIFFSIM_SCREENSHOTS names a folder, for people to look at.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from retrieval.settings import ServerSettings
from tests.serving.served import serving

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SECONDS = 60_000  # ms that a step may take on a busy machine
OWN = ("http://127.0.0.1:", "blob:", "data:")
WIDE = {"width": 1280, "height": 900}


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        made = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="package")
def url(index: Path) -> Iterator[str]:
    with serving({"gallery": index}, ServerSettings(refresh_seconds=60)) as found:
        yield found


Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Open pages in fresh profiles; errors of scripts, and addresses of other sites, fail the test."""
    contexts, wrong = [], []

    def opened(**options: Any) -> Any:
        context = browser.new_context(**{"viewport": WIDE, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(OWN) else wrong.append(r.url))
        page.on("console", lambda m: wrong.append(m.text) if "Content Security Policy" in m.text else None)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def page(open_page: Open) -> Any:
    return open_page()


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Keep a picture of a page for people to look at."""

    def kept(page: Any, name: str = "") -> None:
        if folder := os.environ.get("DIFFSIM_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"{request.node.name.replace('/', '_')}{name}.png")

    return kept
