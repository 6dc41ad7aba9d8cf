"""The pages of duplicates and of clusters in a real browser."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from retrieval import find_duplicates
from retrieval.settings import ServerSettings
from tests.serving.browser.conftest import Open
from tests.serving.browser.test_page_for_everyone import PHONE
from tests.serving.served import serving

pytestmark = pytest.mark.browser

Keep = Callable[..., None]
PAGES = ("/duplicates", "/clusters?min_size=3")


@pytest.fixture(scope="module")
def groups(copies_index: Path) -> Iterator[str]:
    """A server of pictures with copies."""
    with serving({"copies": copies_index}, ServerSettings(refresh_seconds=60)) as found:
        yield found


def shown(page: Any, address: str) -> Any:
    page.goto(address)
    page.wait_for_selector(".group .card")
    return page


@pytest.mark.parametrize("path", PAGES)
def test_groups_lead_to_pictures_that_are_alike(page: Any, groups: str, path: str, keep: Keep) -> None:
    shown(page, groups + path)
    page.wait_for_load_state("networkidle")
    keep(page)
    assert page.locator("img.lost").count() == 0
    page.locator(".card a.open").first.click()
    page.wait_for_selector("body:not(.busy) .card .score")
    page.go_back()
    page.wait_for_selector(".group .card")
    page.get_by_role("link", name="Map").click()
    page.wait_for_url(re.compile("/map"))


def test_the_one_to_keep_comes_first(page: Any, groups: str, copies_index: Path) -> None:
    shown(page, f"{groups}/duplicates")
    found = find_duplicates(copies_index)
    first = page.locator(".group").first
    assert first.locator(".card").count() == len(found.groups[0].members)
    assert first.locator(".card.kept .badge").inner_text() == "keep"
    assert Path(found.groups[0].kept.path).name in first.locator(".card.kept .name").inner_text()
    with page.expect_download() as saved:
        page.get_by_role("link", name=re.compile("paths of the copies")).click()
    assert saved.value.path().read_text().splitlines() == [member.path for member in found.offered]


def test_arrow_keys_walk_the_groups_and_the_form_asks_again(page: Any, groups: str) -> None:
    shown(page, f"{groups}/duplicates")
    at = "() => [...document.querySelectorAll('.card a.open')].indexOf(document.activeElement)"
    page.locator(".card a.open").first.focus()
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowDown", 5), ("ArrowUp", 0)):
        page.keyboard.press(key)
        assert page.evaluate(at) == place, key
    page.get_by_label("Copies agree in").fill("0.99")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("same=0.99"))
    page.wait_for_selector(".group .card")
    assert page.get_by_label("Copies agree in").input_value() == "0.99"
    page.get_by_label("Never offer").fill("/nowhere")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]")
    assert "no image in this reference folder" in page.locator("[role=alert]").inner_text()


@pytest.mark.parametrize("path", PAGES)
def test_a_phone_shows_groups_in_its_width(open_page: Open, groups: str, path: str, keep: Keep) -> None:
    page = shown(open_page(**PHONE), groups + path)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    keep(page)


def test_groups_need_no_javascript(open_page: Open, groups: str, keep: Keep) -> None:
    page = shown(open_page(java_script_enabled=False), f"{groups}/clusters?neighbours=14&min_size=3")
    assert page.locator(".badge").first.inner_text() == "middle"
    keep(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", [*PAGES, "/duplicates?same=3"])
def test_axe_finds_nothing_serious_in_groups(open_page: Open, groups: str, scheme: str, path: str, keep: Keep) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(color_scheme=scheme, bypass_csp=True)
    page.goto(groups + path)
    page.wait_for_selector(".group .card, [role=alert]")
    keep(page)
    found = [each for each in Axe().run(page).response["violations"] if each["impact"] in ("serious", "critical")]
    assert [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in found] == []
