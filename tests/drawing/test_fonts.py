"""Fonts of pictures: each text is drawn with a font that has its letters, wherever the machine keeps one."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import ImageFont

from retrieval.drawing import fonts
from retrieval.drawing.fonts import drawable, own_font

TEXT = "λέξη"


@pytest.fixture
def unnamed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that has none of the fonts that are looked for by name."""
    monkeypatch.setattr(fonts, "_NAMES", ())
    fonts._file_with.cache_clear()
    yield
    fonts._file_with.cache_clear()


def matches(letter: str) -> bool:
    if shutil.which("fc-match") is None:
        return False
    command = ["fc-match", "--format=%{charset}", f"sans:charset={ord(letter):x}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    ranges = (part.partition("-") for part in found.split())
    return any(int(low, 16) <= ord(letter) <= int(high or low, 16) for low, _, high in ranges)


@pytest.mark.usefixtures("unnamed")
@pytest.mark.skipif(not all(map(matches, TEXT)), reason="fontconfig has no font with Greek letters")
def test_fontconfig_finds_a_font_for_letters_that_the_known_fonts_lack() -> None:
    text, font = drawable(TEXT, own_font(14))
    assert text == TEXT
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert font is not own_font(14)
    assert fonts._has(font, TEXT)


@pytest.mark.usefixtures("unnamed")
@pytest.mark.parametrize(
    "script",
    ["exit 1", "echo /nothing.ttf", "printf '%s' \"$0\"", ""],
    ids=["fails", "names no file", "names no font", "says nothing"],
)
def test_a_fontconfig_that_does_not_help_leaves_the_letters_without_accents(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "fc-match"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert drawable("Grüße", own_font(14)) == ("Gruße", own_font(14))
