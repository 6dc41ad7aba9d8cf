"""Notes and errors as a user reads them: the library's sentence and the option that helps; quiet and verbose."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.advice import sentence_of
from retrieval.errors import UsageError
from retrieval.settings import BuildSettings
from tests.support.faults import flip_bit
from tests.support.sample_index import paint

Shown = tuple[int, str, str]  # exit code, stdout, stderr
Run = Callable[..., Shown]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def called(command: str, *words: str | Path) -> Shown:
        from cli import eval_command, index_command, search_command

        main = {"eval": eval_command, "index": index_command, "search": search_command}[command].main
        monkeypatch.setattr(sys, "argv", [f"diffsim-{command}", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return called


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    paint(tmp_path / "photos", range(6))
    return tmp_path / "photos"


BUILD = ("index", "build", "photos", "--model", "cells", "--modes", "style")


def test_an_error_ends_with_its_remedy(run: Run, photos: Path) -> None:
    with pytest.raises(UsageError) as found:
        BuildSettings(batch_size=9, segment_rows=4)
    assert "--" not in str(found.value), "the library names no option"
    sentence = "batch size 9 is more than the 4 images of one commit; choose a smaller --batch-size or a larger"
    assert sentence_of(found.value) == f"{sentence} --segment-rows"
    code, out, err = run(*BUILD, "--batch-size", "9", "--segment-rows", "4")
    assert (code, out, err) == (2, "", f"error: {sentence} --segment-rows\n")


def test_notes_of_a_search_end_with_their_remedy_in_every_form(run: Run, photos: Path) -> None:
    query = sorted(photos.iterdir())[0]
    run(*BUILD, "--attention", "lazy", "-q")
    (photos / sorted(photos.iterdir())[-1].name).unlink()
    search = ("search", query, "--max-cache", "0")
    remedy = "bring it up to date with: diffsim-index build SOURCE, or with --update"
    code, _, err = run(*search)
    assert code == 0
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert any(note.endswith(remedy) for note in notes), err
    report = json.loads(run(*search, "--json")[1])
    assert [f"note: {note}" for note in report["notes"]] == notes
    assert run(*search, "-q", "--paths")[2] == ""


def test_an_error_inside_json_has_its_remedy(run: Run, photos: Path) -> None:
    run(*BUILD, "-q")
    query = sorted(photos.iterdir())[0]
    code, out, err = run("search", query, "nothing.png", "--json")
    assert code == 1
    failed = json.loads(out)[1]
    assert failed["kind"] == "usage"
    assert f"error: {failed['error']}\n" == err


def test_quiet_prints_errors_only_and_verbose_logs(run: Run, photos: Path) -> None:
    assert run(*BUILD, "-q") == (0, "", "")
    (photos / "cut.png").write_bytes(b"no image")
    code, out, err = run(*BUILD, "-v")
    assert code == 0
    assert out.startswith("photos.diffsim: 6 images, nothing new; ")
    lines = err.splitlines()
    assert "1 image to index" in lines
    assert any(line.startswith("model cells, ") for line in lines)
    assert any(line.startswith("disk: ") for line in lines)
    assert "note: 1 image rejected (1 not_an_image); list the reasons with: diffsim-index info --rejects" in lines
    assert any(line.startswith("INFO retrieval.") for line in lines), err


def test_an_option_that_changes_nothing_is_noted(run: Run, photos: Path) -> None:
    code, _, err = run(*BUILD, "--noise", "shared")
    assert (code, err) == (0, "note: --noise changes nothing of cells\n")


def test_the_choice_of_a_model_is_noted_once(run: Run, photos: Path) -> None:
    first, again = (run("index", "build", "photos", "--modes", "style", "--device", "cpu")[2] for _ in range(2))
    assert first.startswith("note: model mini, ")
    assert "no GPU" in first
    assert first.endswith("; choose another with --model\n")
    assert again == ""
    planned = run("index", "build", "photos", "-i", "new.diffsim", "--device", "cpu", "--dry-run")[1]
    assert "choose another with --model" in planned


def test_a_repair_is_one_line_without_the_librarys_log(run: Run, photos: Path, tmp_path: Path) -> None:
    run(*BUILD, "-q")
    flip_bit(next(tmp_path.glob("photos.diffsim/items/*/items.parquet")), 800)
    code, out, err = run("index", "verify", "--repair")
    assert code == 0
    assert "items.parquet has changed" in out
    assert err == "took out nothing; 1 file restored from second copies\n"
