"""Bad hours of a terminal: streams that are full, closed or ASCII only, and names that a terminal would obey."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO
from unittest import mock

import pytest

from cli.index_command import app as index_app
from cli.index_command import main
from cli.terminal.printing import guarded_streams, say, show, show_json, show_paths
from retrieval.errors import DiffSimError
from retrieval.text import escaped
from tests.support.commands import BIN, failed, query_of, run_here

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\n.png"
COMMANDS = (
    ("diffsim-index", "info"),
    ("diffsim-index", "info", "--json"),
    ("diffsim-index", "verify"),
    ("diffsim-index", "doctor", "--json"),
    ("diffsim-index", "doctor", "--weights", "cells"),
    ("diffsim-index", "fetch", "cells"),
    ("diffsim-index", "--help"),
    ("diffsim-index", "--version"),
    ("diffsim-search", "QUERY"),
    ("diffsim-search", "QUERY", "--json"),
    ("diffsim-search", "QUERY", "--paths"),
    ("diffsim-search", "QUERY", "-0"),
    ("diffsim-search", "--help"),
    ("diffsim-eval", "list"),
    ("diffsim-eval", "table"),
    ("diffsim-eval", "score", "QUERY", "QUERY", "-m", "ssim"),
)


class Device(io.RawIOBase):
    """A file that refuses every byte, as /dev/full and a pipe without a reader do."""

    def __init__(self, error: OSError) -> None:
        self._error = error

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raise self._error


def stream(error: OSError) -> TextIO:
    return io.TextIOWrapper(io.BufferedWriter(Device(error)), "utf-8")


def run_into(out: TextIO | None, err: TextIO | None, *words: str, cwd: Path) -> int:
    """Run a command in this process with these streams, and return its exit code."""
    with mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stderr", err):
        return called(words, cwd)


def called(words: tuple[str, ...], cwd: Path) -> int:
    import contextlib
    import importlib

    module = importlib.import_module(f"cli.{words[0].removeprefix('diffsim-')}_command")
    with contextlib.chdir(cwd), mock.patch.object(sys, "argv", list(words)), pytest.raises(SystemExit) as ended:
        module.main()
    return int(ended.value.code or 0)


def wrapped() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), "utf-8")


def text_of(written: io.TextIOWrapper) -> str:
    written.flush()
    data: bytes = written.buffer.getvalue()  # type: ignore[attr-defined]
    return data.decode(written.encoding)


@pytest.fixture(scope="module")
def desk(index: Path, gallery: Path) -> Path:
    """A working directory that holds one index."""
    return index.parent


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_survives_its_streams(command: tuple[str, ...], desk: Path, gallery: Path) -> None:
    words = tuple(str(query_of(gallery)) if word == "QUERY" else word for word in command)
    full, gone = OSError(28, "No space left on device"), BrokenPipeError(32, "Broken pipe")
    for out in (stream(full), None):
        err = wrapped()
        assert run_into(out, err, *words, cwd=desk) == 1
        (line,) = text_of(err).splitlines()
        assert line.startswith("error: stdout can't be written: ")
    expected = run_into(wrapped(), None, *words, cwd=desk)
    assert expected == run_into(stream(gone), wrapped(), *words, cwd=desk), "a reader such as head has read enough"
    assert expected == run_into(wrapped(), stream(full), *words, cwd=desk), "messages are dropped"
    ascii_only = io.TextIOWrapper(io.BytesIO(), "ascii")
    assert expected == run_into(ascii_only, wrapped(), *words, cwd=desk)
    assert text_of(ascii_only)


def test_messages_never_go_to_stdout(desk: Path) -> None:
    out = wrapped()
    assert run_into(out, None, "diffsim-search", "nothing.png", cwd=desk) == 2
    assert text_of(out) == ""


@pytest.mark.parametrize("name", [EVIL, "caf\udce9.png", "ru\u202exe.png", "tab\there"])
def test_control_characters_of_names_are_shown_as_escapes(
    name: str, tmp_path: Path, desk: Path, gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(query_of(gallery).read_bytes())
    shown = [run_here("diffsim-search", name, cwd=desk), run_here("diffsim-index", "info", "-i", name, cwd=desk)]
    if "\udce9" not in name:  # a name that isn't UTF-8 is a reject of its own
        (photos / name).with_suffix(".png").write_bytes(b"no image")
        build = ("diffsim-index", "build", photos, "-i", tmp_path / f"{name}.diffsim", "--modes", "style")
        shown += [run_here(*build, "--model", "cells", "-vv", cwd=tmp_path)]
        shown += [run_here("diffsim-index", "info", "--rejects", *build[3:5], cwd=tmp_path)]
        shown += [run_here("diffsim-search", photos / "a.png", photos / name, *build[3:5], cwd=tmp_path)]
    for each in shown:
        lines = (each.stdout + each.stderr).decode().splitlines()
        assert lines
        for line in lines:
            assert line.replace("\t", "").isprintable(), line
    assert escaped(name) in shown[0].stderr.decode()
    assert not shown[0].stdout


def test_names_in_json_are_the_names_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"path": EVIL, "latin": "caf\udce9", "word": "grün 日本 👪"})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"path": EVIL, "latin": "caf\udce9", "word": "grün 日本 👪"}
    assert "grün 日本 👪" in printed
    assert all(line.isprintable() for line in printed.splitlines())
    out = io.TextIOWrapper(io.BytesIO(), "latin-1")
    with mock.patch.object(sys, "stdout", out):
        show_json({"word": "grün 日本"}, indent=None)
    assert json.loads(text_of(out)) == {"word": "grün 日本"}


@pytest.mark.parametrize("text", ["grün", "日本\u3000語", "می\u200cخواهم", "a b\u00a0c"])
def test_letters_and_spaces_of_every_script_stay(text: str) -> None:
    assert escaped(text) == text


def test_paths_are_bytes_for_programs(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with guarded_streams():
        show_paths(["a\x1bb", "caf\udce9"], b"\0")
    assert capfdbinary.readouterr().out == b"a\x1bb\0caf\xe9\0"


def test_a_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    show("a\nb", "c\rd")
    say("e\x85f")
    assert capsys.readouterr() == ("a\\nb\tc\\rd\n", "e\\x85f\n")


def test_an_error_inside_ends_with_the_streams_as_before() -> None:
    out = sys.stdout
    with pytest.raises(DiffSimError), guarded_streams():
        raise DiffSimError("x")
    assert sys.stdout is out


Prepare = Callable[[], None]


def closed(number: int) -> Prepare:
    return lambda: os.close(number)


def into_full(number: int) -> Prepare:
    return lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), number) and None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize(
    ("prepare", "code"),
    [(closed(1), 1), (closed(2), 0), (into_full(1), 1), (into_full(2), 0)],
    ids=["stdout closed", "stderr closed", "stdout full", "stderr full"],
)
@pytest.mark.thorough
def test_a_real_process_ends_in_one_sentence(prepare: Prepare, code: int, tmp_path: Path) -> None:
    command = [str(BIN / "diffsim-index"), "fetch", "cells", "-v"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, preexec_fn=prepare)
    assert ended.returncode == code, ended.stderr
    if code:
        (line,) = ended.stderr.splitlines()
        assert line.startswith("error: stdout can't be written: ")
    else:
        assert (ended.stdout, ended.stderr) == ("cells needs no download\n", "")


def test_a_closed_stdin_is_no_query(desk: Path) -> None:
    with mock.patch.object(sys, "stdin", None):
        assert "closed" in failed(run_here("diffsim-search", "-", cwd=desk), 2)


def test_a_deleted_working_directory_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = wrapped(), wrapped()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir("gone")
    os.rmdir(tmp_path / "gone")
    monkeypatch.setattr(sys, "argv", ["diffsim-index", "doctor"])
    with mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stderr", err), pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert text_of(err) == "error: the working directory does not exist any more; change to another folder\n"


def test_every_command_can_be_quiet_and_verbose() -> None:
    import inspect

    from cli.eval_command import app as eval_app

    plain = {"list_everything"}  # a table of facts
    commands = [*index_app.registered_commands, *eval_app.registered_commands]
    for command in commands:
        assert command.callback is not None
        if command.callback.__name__ not in plain:
            assert {"quiet", "verbose"} <= inspect.signature(command.callback).parameters.keys(), command.callback
