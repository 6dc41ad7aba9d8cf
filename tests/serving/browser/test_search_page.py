"""Search in a real browser: files, boxes, boards, modes, links, the back button, explanations and errors."""

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

Keep = Callable[..., None]

PASTE = """(data) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
  const event = new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
  document.body.dispatchEvent(event);
}"""
DROP = PASTE.replace(
    'new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })',
    'new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })',
)


def results(page: Any) -> list[str]:
    """The names on the cards, once a search has ended."""
    page.wait_for_selector("body:not(.busy) .card .score")
    names: list[str] = page.locator(".column").first.locator(".card .name").all_inner_texts()
    return names


def searched(page: Any, pattern: str) -> None:
    page.wait_for_url(re.compile(pattern))
    page.wait_for_selector("body:not(.busy) .card .score")


def test_an_uploaded_picture_finds_itself(page: Any, url: str, files: list[Path], keep: Keep) -> None:
    page.goto(url)
    page.set_input_files("#file", files[11])
    searched(page, r"image=upload:[0-9a-f]{64}")
    assert results(page)[0] == "/".join(files[11].parts[-2:])
    assert page.locator("#status").inner_text().startswith("40 by style")
    keep(page)


@pytest.mark.parametrize("script", [PASTE, DROP], ids=["pasted", "dropped"])
def test_a_picture_is(page: Any, url: str, files: list[Path], script: str) -> None:
    page.goto(url)
    page.wait_for_selector("html.scripted")
    page.evaluate(script, base64.b64encode(files[20].read_bytes()).decode())
    searched(page, "image=upload:")
    assert results(page)[0] == "/".join(files[20].parts[-2:])


def test_a_box_is_drawn_and_found(page: Any, url: str, keep: Keep) -> None:
    page.goto(f"{url}/?image=id:9")
    results(page)
    place = page.locator("#asked .picture").bounding_box()
    x, y, width, height = (place[name] for name in ("x", "y", "width", "height"))
    page.mouse.move(x + 0.2 * width, y + 0.3 * height)
    page.mouse.down()
    page.mouse.move(x + 0.5 * width, y + 0.5 * height)
    page.mouse.move(x + 0.8 * width, y + 0.9 * height)
    page.mouse.up()
    searched(page, r"box=0\.\d+,0\.\d+,0\.\d+,0\.\d+")
    assert page.locator(".cards .found rect").count() > 3, "every result shows where it has the region"
    box = [float(number) for number in page.locator("#box").input_value().split(",")]
    assert box == pytest.approx([0.2, 0.3, 0.6, 0.6], abs=0.03)
    keep(page)


def test_a_board_moves_toward_and_away(page: Any, url: str, keep: Keep) -> None:
    page.goto(f"{url}/?image=id:9")
    first = results(page)
    page.get_by_role("link", name=re.compile("^Add .* to the board")).nth(5).click()
    searched(page, "image=id:9&image=id:")
    assert page.locator("#asked .piece").count() == 2
    page.get_by_role("link", name=re.compile("^Move away from")).nth(2).click()
    searched(page, "minus=id:")
    assert page.locator("#asked .piece.away").count() == 1
    assert results(page) != first
    keep(page)
    page.get_by_role("link", name=re.compile("^Remove picture to move away from")).click()
    page.wait_for_selector(".piece.away", state="detached")


def test_modes_change_and_stand_side_by_side(page: Any, url: str, keep: Keep) -> None:
    page.goto(f"{url}/?image=id:9")
    results(page)
    page.get_by_role("radio", name="instance").check()
    searched(page, "mode=instance")
    page.wait_for_selector(".column[data-mode=instance]")
    page.get_by_text("More options").click()
    page.get_by_label("Beside it").select_option("style")
    page.wait_for_selector(".columns.two .column[data-mode=style] .score")
    assert page.locator(".column").count() == 2
    keep(page)


def test_more_like_this_links_and_the_back_button(page: Any, url: str, open_page: Any) -> None:
    page.goto(f"{url}/?image=id:9&k=7")
    first = results(page)
    assert len(first) == 7
    page.locator(".card .open").nth(3).click()
    page.wait_for_function("() => !location.search.includes('image=id:9')")
    second = results(page)
    assert second[0] == first[3], "the picture that was followed is nearest to itself"
    other = open_page()
    other.goto(page.url)
    assert results(other) == second, "the address is a link to the same results"
    page.go_back()
    page.wait_for_url(re.compile("image=id:9"))
    page.wait_for_function(f"() => document.querySelector('.card .name')?.textContent === '{first[0]}'")
    assert results(page) == first
    page.get_by_role("link", name="Clear").click()
    page.wait_for_function("() => document.querySelector('h2').textContent === 'All pictures'")


def test_a_score_is_explained_on_hover_and_by_the_keyboard(page: Any, url: str, keep: Keep) -> None:
    page.goto(f"{url}/?image=id:9")
    results(page)
    card = page.locator(".card").nth(2)
    card.hover()
    card.locator("canvas.heat").wait_for()
    assert page.locator("#asked canvas.heat").count() == 1
    keep(page)
    page.mouse.move(5, 5)
    page.wait_for_selector("canvas.heat", state="detached")
    why = page.get_by_role("button", name=re.compile("^Explain the score")).nth(1)
    why.focus()
    page.keyboard.press("Enter")
    page.locator(".card").nth(1).locator("canvas.heat").wait_for()
    assert why.get_attribute("aria-pressed") == "true"
    assert "make most of the score" in page.locator("#status").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_selector("canvas.heat", state="detached")


def test_errors_are_said_where_they_can_be_read(page: Any, url: str, tmp_path: Path, keep: Keep) -> None:
    page.goto(url)
    page.get_by_role("button", name="Search").click()
    assert "choose a picture first" in page.get_by_role("alert").inner_text()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    page.set_input_files("#file", tmp_path / "broken.png")
    page.wait_for_function("() => document.querySelector('[role=alert]')?.textContent.includes('PNG')")
    page.get_by_label("Picture by name").fill("no-such-picture.png")
    page.get_by_role("button", name="Search").click()
    page.wait_for_function("() => document.querySelector('[role=alert]')?.textContent.includes('no-such-picture')")
    keep(page)
    page.goto(f"{url}/?image=upload:{'0' * 64}")
    assert "send the image again" in page.get_by_role("alert").inner_text()
    page.goto(f"{url}/?index=nowhere")
    assert "known: gallery" in page.get_by_role("alert").inner_text()
    keep(page, "-no-index")


def test_the_server_may_be_gone(page: Any, url: str) -> None:
    page.goto(f"{url}/?image=id:9")
    results(page)
    page.route("**/v1/**", lambda route: route.abort())
    page.get_by_role("radio", name="instance").check()
    page.wait_for_function("() => document.querySelector('[role=alert]')?.textContent.includes(\"can't be reached\")")
    page.unroute("**/v1/**")
    page.get_by_role("radio", name="style").check()
    page.wait_for_selector(".banner", state="detached")
