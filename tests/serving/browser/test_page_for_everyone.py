"""The page without a mouse, on a phone, in the dark, without JavaScript, for screen readers, and with many pictures."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.browser.conftest import Open
from tests.serving.served import serving
from tests.support.stub_models import load_tiny

pytestmark = pytest.mark.browser

Keep = Callable[..., None]
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
MANY = 10_000


def ready(page: Any) -> Any:
    page.wait_for_selector("body:not(.busy) .card")
    return page


def test_the_map_is_walked_caught_and_jumped_on(page: Any, url: str, keep: Keep) -> None:
    page.goto(f"{url}/map?mode=style")
    page.wait_for_function("() => document.querySelector('#status').textContent.includes('lie near each other')")
    page.wait_for_load_state("networkidle")
    keep(page)
    place = page.locator("#plane").bounding_box()
    page.get_by_role("button", name="Lasso").click()
    corners = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]
    page.mouse.move(place["x"] + 2, place["y"] + 2)
    page.mouse.down()
    for x, y in corners:
        page.mouse.move(place["x"] + 2 + x * (place["width"] - 4), place["y"] + 2 + y * (place["height"] - 4))
    page.mouse.up()
    page.wait_for_selector("#chosen .card .name")
    assert page.locator("#chosen-heading").inner_text() == "40 chosen"
    page.get_by_label("Jump to").fill("ink/cat.png")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#chosen-heading').textContent === '1 chosen'")
    keep(page, "-jump")
    page.locator("#plane").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#near:not([hidden])")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("image=id:"))
    page.wait_for_selector("body:not(.busy) .card .score")


def test_the_keyboard_alone_is_enough(page: Any, url: str) -> None:
    page.goto(url)
    ready(page)
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "Skip to the pictures"
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.id === 'main'")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "open"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("image=id:"))
    page.wait_for_selector("body:not(.busy) .card .score")
    assert page.evaluate("() => document.activeElement.id") == "main", "the results are where one goes on"


def test_a_phone_shows_everything_in_its_width(open_page: Open, url: str, keep: Keep) -> None:
    page = open_page(**PHONE)
    for path in ("/", "/?image=id:9&compare=instance", "/map"):
        page.goto(url + path)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), path
        keep(page, re.sub(r"\W", "", path))


def test_without_javascript_a_picture_is_searched(open_page: Open, url: str, files: list[Path], keep: Keep) -> None:
    page = open_page(java_script_enabled=False)
    page.goto(url)
    assert page.locator(".card").count() == 40
    page.set_input_files("#file", files[11])
    page.get_by_role("button", name="Search").click()
    page.wait_for_url(re.compile("image=upload:"))
    assert page.locator(".card .name").first.inner_text() == "/".join(files[11].parts[-2:])
    page.get_by_role("link", name=re.compile("^Add .* to the board")).nth(2).click()
    page.wait_for_url(re.compile("image=upload:.*image=id:"))
    page.get_by_label("Picture by name").fill("ink/cat.png")
    page.get_by_role("radio", name="instance").check()
    page.get_by_role("button", name="Search").click()
    page.wait_for_url(re.compile("mode=instance.*image=id:"))
    assert page.locator(".card .name").first.inner_text() == "ink/cat.png"
    keep(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/?image=id:9&minus=id:3&compare=instance", "/map", "/?index=nowhere", "/login"])
def test_axe_finds_nothing_serious(open_page: Open, url: str, scheme: str, path: str, keep: Keep) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(color_scheme=scheme, bypass_csp=True)
    page.goto(url + path)
    page.wait_for_load_state("networkidle")
    keep(page)
    found = [each for each in Axe().run(page).response["violations"] if each["impact"] in ("serious", "critical")]
    serious = [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in found]
    assert serious == []


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of many small pictures."""
    from retrieval.indexing.build import build_index
    from retrieval.settings import BuildSettings
    from tests.support.sample_index import paint

    folder = tmp_path_factory.mktemp("many")
    paint(folder / "photos", (f"{number:05d}.png" for number in range(MANY)))
    build_index(
        folder / "photos",
        folder / "many.diffsim",
        modes=["style"],
        model="cells",
        load=load_tiny,
        run=BuildSettings(device="cpu"),
    )
    with serving({"many": folder / "many.diffsim"}, load=load_tiny) as found:
        yield found


def test_ten_thousand_pictures_scroll_in_a_window(page: Any, many: str, keep: Keep) -> None:
    page.goto(many)
    ready(page)
    assert page.locator("#status").inner_text() == f"{MANY} pictures"
    frames = page.evaluate(
        """async () => {
          const times = [];
          let last = performance.now();
          for (let step = 0; step < 60; step += 1) {
            scrollTo(0, (step + 1) * 3000);
            await new Promise(requestAnimationFrame);
            times.push(performance.now() - last);
            last = performance.now();
          }
          return times.sort((a, b) => a - b);
        }"""
    )
    assert page.locator(".card").count() < 150, "cards beyond the window do not exist"
    print(f"scrolled 60 frames: median {frames[30]:.1f} ms, longest {frames[-1]:.1f} ms")
    page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function(f"() => document.querySelector('[aria-posinset=\"{MANY}\"] .name')")
    keep(page)
