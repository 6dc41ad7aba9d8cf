"""Contact sheets: the layout of the picture, the safety of the page, and how both are written."""

import base64
import io
import os
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.drawing import contact_sheet as module
from retrieval.drawing import sheet_file
from retrieval.drawing.cells import SheetCell, SheetRow, Thumbnails
from retrieval.drawing.contact_sheet import contact_sheet
from retrieval.drawing.fonts import own_font, shortened
from retrieval.drawing.html_page import html_page
from retrieval.drawing.sheet_file import write_sheet
from retrieval.errors import DiffSimError, NoSpaceError, UsageError
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.text import printable

RED, BLUE = (250, 20, 20), (20, 20, 250)
HOSTILE = 'a"><script>alert(1)</script>&amp;\n\u202e日本\udcff.png'


def picture(colour: tuple[int, int, int] = RED, size: tuple[int, int] = (40, 40)) -> Image.Image:
    return Image.new("RGB", size, colour)


def row(count: int, title: str = "style") -> SheetRow:
    cells = [SheetCell(picture(BLUE), f"{0.9 - k / 100:.3f}", f"ink/{k}.png") for k in range(count)]
    return SheetRow(title, SheetCell(picture(), "", "ink/query.png"), cells)


def squares(sheet: Image.Image, colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Return the upper left corners, in reading order, of the solid squares of a colour."""
    same = (np.asarray(sheet) == colour).all(axis=2)
    above, left = np.zeros_like(same), np.zeros_like(same)
    above[1:], left[:, 1:] = same[:-1], same[:, :-1]
    return [(int(x), int(y)) for y, x in np.argwhere(same & ~above & ~left)]


@dataclass
class Page(HTMLParser):
    """The elements of a page as a browser sees them."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def parsed(rows: list[SheetRow], heading: str = "") -> Page:
    page = Page()
    page.feed(html_page(rows, heading))
    page.close()
    return page


@pytest.mark.parametrize(("count", "columns", "lines"), [(1, 1, 1), (7, 7, 1), (10, 10, 1), (12, 8, 2), (20, 10, 2)])
def test_neighbours_wrap_beside_their_query(count: int, columns: int, lines: int) -> None:
    sheet = contact_sheet([row(count)], cell=48)
    corners = squares(sheet, BLUE)
    assert len(corners) == count
    assert len({x for x, _ in corners}) == columns
    assert len({y for _, y in corners}) == lines
    assert corners == sorted(corners, key=lambda corner: (corner[1], corner[0]))
    [(query_x, query_y)] = squares(sheet, RED)
    assert query_x + 48 < min(x for x, _ in corners)
    assert query_y == min(y for _, y in corners)


def test_a_title_widens_a_sheet_of_few_pictures_up_to_five_columns() -> None:
    short, long, longest = (contact_sheet([row(1, "word " * count)], cell=64).width for count in (1, 12, 900))
    assert short < long < longest
    assert longest == contact_sheet([row(5, "")], cell=64).width
    assert contact_sheet([row(6, "word")], cell=64).width == contact_sheet([row(6, "word " * 900)], cell=64).width


def test_every_row_gets_its_own_height_and_the_widest_sets_the_width() -> None:
    one, three = contact_sheet([row(4)], cell=48), contact_sheet([row(4), row(2, "instance"), row(0)], cell=48)
    assert one.width == three.width
    assert three.height > 2 * one.height
    assert len(squares(three, RED)) == 3
    assert contact_sheet([], "nothing").height > 0


def test_aspect_ratio_is_kept_and_small_pictures_are_enlarged() -> None:
    cell = SheetCell(picture(BLUE, (80, 20)), "")
    sheet = np.asarray(contact_sheet([SheetRow("t", cell, [])], cell=64))
    rows_of_blue, columns_of_blue = np.where((sheet == BLUE).all(axis=2))
    assert np.ptp(columns_of_blue) + 1 == 64
    assert np.ptp(rows_of_blue) + 1 == 16


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(BLUE, (80, 20)).save(tmp_path / "turned.jpg", exif=exif)
    made = Thumbnails(64).of(SheetCell(tmp_path / "turned.jpg", ""))
    assert made is not None
    assert made.size == (16, 64)


def test_missing_and_broken_files_become_grey_cells(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "empty.jpg").touch()
    sources = [tmp_path / "absent.png", tmp_path / "broken.png", tmp_path / "empty.jpg", tmp_path, None]
    rows = [SheetRow("style", SheetCell(sources[0], ""), [SheetCell(source, "0.1") for source in sources])]
    sheet = contact_sheet(rows, cell=96)
    assert len(squares(sheet, module._LINE)) >= len(sources) + 1
    assert parsed(rows).text.count("not found") == len(sources) + 1


def test_one_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save(tmp_path / "a.png")
    reads: list[Path] = []

    def counted(path: Path, rules: DecodeRules) -> object:
        reads.append(path)
        return read_image(path, rules)

    monkeypatch.setattr("retrieval.drawing.cells.read_image", counted)
    cell = SheetCell(tmp_path / "a.png", "1")
    contact_sheet([SheetRow("style", cell, [cell, cell]), SheetRow("instance", cell, [cell])], cell=48)
    assert reads == [tmp_path / "a.png"]


@pytest.mark.parametrize("text", [HOSTILE, "x" * 5000, "\x00\x1b[31m", "", "𝔸🐈" * 40])
def test_any_text_can_be_drawn(text: str) -> None:
    cell = SheetCell(picture(), text, text)
    drawn = contact_sheet([SheetRow(text, cell, [cell])], text, cell=48)
    plain = contact_sheet([SheetRow("t", cell, [cell])], text and "t", cell=48)
    assert drawn.height == plain.height
    assert plain.width <= drawn.width <= contact_sheet([row(5)], cell=48).width


def test_names_are_shortened_in_the_middle() -> None:
    font = own_font(12)
    short = shortened("a_very_long_folder_name/and_a_file.png", font, 120)
    assert font.getlength(short) <= 120
    assert short.startswith("a_very")
    assert short.endswith("file.png")
    assert "…" in short
    assert shortened("cat.png", font, 120) == "cat.png"
    assert shortened("cat.png", font, 1) == ""


def test_control_characters_are_replaced() -> None:
    assert printable("a\nb\tc\x00\u202ed\udcffé 日") == "a b c\ufffd\ufffdd\ufffdé 日"


def test_the_page_says_what_the_picture_says() -> None:
    page = parsed([row(3), row(2, "instance"), row(0, "semantic")], "A <heading>")
    images, titles = page.all("img"), page.all("section")
    assert len(titles) == 3
    assert len(images) == 3 + 5
    assert all(image["alt"] for image in images)
    assert images[0]["alt"] == "query, ink/query.png"
    assert images[1]["alt"] == "1, ink/0.png, 0.900"
    assert "A <heading>" in page.text
    assert "no results" in page.text
    assert page.all("html") == [{"lang": "en"}]
    assert not page.all("script") + page.all("link") + page.all("iframe")
    data = (images[1]["src"] or "").removeprefix("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
        assert image.size == (288, 288)


def test_the_page_takes_hostile_names_as_text(tmp_path: Path) -> None:
    path = tmp_path / HOSTILE.replace("/", "_")
    cell = SheetCell(path, HOSTILE, HOSTILE)
    rows = [SheetRow(HOSTILE, cell, [cell])]
    page = parsed(rows, HOSTILE)
    plain = [
        tag for tag, _ in parsed([SheetRow("t", SheetCell(path, "c", "n"), [SheetCell(path, "c", "n")])], "t").tags
    ]
    assert [tag for tag, _ in page.tags] == plain
    assert {name for _, attrs in page.tags for name in attrs} <= {
        *("lang", "charset", "name", "content", "http-equiv", "class", "href", "role", "aria-label"),
    }
    assert printable(HOSTILE) in page.text
    for link in page.all("a"):
        address = link["href"] or ""
        assert address.startswith("file:///")
        assert not set(address) & set("\"<>' \n")
        assert "%22%3E%3Cscript%3E" in address
        assert "%0A" in address
    html_page(rows, HOSTILE).encode()


def test_images_in_memory_have_no_link() -> None:
    assert not parsed([row(2)]).all("a")


@pytest.mark.parametrize(
    ("name", "kind"), [("s.png", "PNG"), ("s.JPG", "JPEG"), ("s.jpeg", "JPEG"), ("s.webp", "WEBP")]
)
def test_the_suffix_chooses_the_picture_format(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / "made" / "for" / name
    write_sheet(path, [row(2)], "heading")
    with Image.open(path) as image:
        assert image.format == kind
        assert image.size == contact_sheet([row(2)], "heading").size
    assert [*path.parent.iterdir()] == [path]


def test_the_suffix_chooses_the_page(tmp_path: Path) -> None:
    write_sheet(tmp_path / "s.html", [row(2)], HOSTILE)
    assert (tmp_path / "s.html").read_bytes() == html_page([row(2)], HOSTILE).encode()


@pytest.mark.parametrize("name", ["sheet.gif", "sheet", "sheet.png.txt"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.png.*\.html"):
        write_sheet(tmp_path / "folder" / name, [row(1)])
    assert not [*tmp_path.iterdir()]


def test_a_picture_too_large_for_its_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sheet_file._PICTURES, ".webp", ("WEBP", 100))
    with pytest.raises(UsageError, match="too large for WEBP"):
        write_sheet(tmp_path / "s.webp", [row(1)])
    with pytest.raises(UsageError, match="at least 32"):
        contact_sheet([row(1)], cell=31)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.html"
    path.write_text("old")

    def full(source: str, target: str, **folders: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(NoSpaceError, match=r"s\.html"):
            write_sheet(path, [row(1)])
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]
    with pytest.raises(DiffSimError):
        write_sheet(path / "below.html", [row(1)])
    write_sheet(path, [row(1)])
    assert path.read_text() != "old"
