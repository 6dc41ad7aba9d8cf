"""Values that a command takes without Typer's conversion are those that the conversion gives."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer

from cli.terminal.plain_values import take_plain_values

CASES = [
    [],
    ["a", "b"],
    ["--text", "x", "--number", "7", "--share", "0.5", "--choice", "two"],
    ["--number", "-3"],
    ["--number", "٣"],
    ["--number", "many"],
    ["--share", "nan"],
    ["--choice", "three"],
    ["--choice", "TWO"],
    ["--each", "x", "--each", "y"],
    ["--file", "f", "--files", "f", "--files", "g"],
    ["--pair", "x", "2"],
    ["--pair", "x", "y"],
    ["--ranged", "9"],
    ["--ranged", "3"],
    ["--flag", "--shout", "-v", "-v"],
    ["--help"],
]


def _command(seen: list[dict[str, Any]]) -> Any:
    app = typer.Typer(rich_markup_mode=None)

    def double(value: str | None) -> str | None:
        return value and value * 2

    @app.command()
    def run(
        names: Annotated[list[str] | None, typer.Argument()] = None,
        text: Annotated[str | None, typer.Option(callback=double)] = "ab",
        number: Annotated[int | None, typer.Option()] = None,
        share: Annotated[float, typer.Option()] = 0.25,
        choice: Annotated[Literal["one", "two"] | None, typer.Option()] = None,
        each: Annotated[list[str] | None, typer.Option()] = None,
        file: Annotated[Path | None, typer.Option()] = None,
        files: Annotated[list[Path] | None, typer.Option()] = None,
        pair: Annotated[tuple[str, float] | None, typer.Option()] = None,
        ranged: Annotated[int, typer.Option(max=5)] = 2,
        flag: Annotated[bool, typer.Option("--flag")] = False,
        shout: Annotated[bool | None, typer.Option("--shout/--whisper")] = None,
        verbose: Annotated[int, typer.Option("-v", count=True)] = 0,
    ) -> None:
        seen.append({name: (type(value), value) for name, value in locals().items() if name != "seen"})

    return typer.main.get_command(app)


def _outcome(command: Any, words: list[str]) -> object:
    try:
        return command(words, standalone_mode=False)
    except Exception as error:  # typer bundles click, so no class can be named
        return type(error), error.format_message()  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_values_and_errors_are_those_of_typer(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    plain_seen, seen = list[dict[str, Any]](), list[dict[str, Any]]()
    plain, converted = _command(plain_seen), _command(seen)
    take_plain_values(plain)
    assert _outcome(plain, words) == _outcome(converted, words)
    assert repr(plain_seen) == repr(seen)
    shown = capsys.readouterr().out
    assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]
